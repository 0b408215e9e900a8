"""The Lambda Runtime API daemon: one function, its runtimes, and the APIs beside them."""
