"""HTTP for rapid: listeners, and the connections that a poller serves."""
