"""Invocations from RabbitMQ: the consumers of a function's two queues, and replies."""
