"""Lambda Server: the AWS Invoke API for any function, over RabbitMQ or straight to a rapid."""

from __future__ import annotations

from lambda_protocol import __version__ as __version__


def __getattr__(name: str) -> object:
    """Return the worker class for ``gunicorn -k``, imported only when it is asked for."""
    if name == "PollingWorker":
        from lambda_server.polling_worker import PollingWorker

        return PollingWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
