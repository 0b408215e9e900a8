"""What is called over HTTP: the Invoke API, and the APIs that a function's processes call."""
