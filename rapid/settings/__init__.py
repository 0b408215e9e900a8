"""The settings of rapid: flags, environment variables, and the command they name."""
