"""The scheduler: waiting calls, idle environments, and the match between them."""
