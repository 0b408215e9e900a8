"""Asynchronous invocation, whatever brought it: retry policy, destinations, the memory queue."""
