"""Function URLs: HTTP requests to functions, by host, by path, by a table, or by default."""
