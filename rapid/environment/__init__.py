"""One execution environment: its phases, processes, extensions and control group."""
