"""The WSGI application: ``gunicorn lambda_server.wsgi``."""

from __future__ import annotations

import os

from lambda_protocol.log_format import configure_logging
from lambda_server.app import create_app
from lambda_server.config import Config

_config = Config.from_environ(os.environ)
configure_logging(_config.log_level, structured=_config.logs_structured, program="lambda-server")

application = create_app(_config)
#: The name Flask's own tools look for.
app = application
