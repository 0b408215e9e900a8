"""Lambda Server: the AWS Invoke API for any function, over RabbitMQ or straight to a rapid."""

from __future__ import annotations

from lambda_protocol import __version__ as __version__
