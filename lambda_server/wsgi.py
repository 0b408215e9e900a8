"""The WSGI application: ``gunicorn lambda_server.wsgi``."""

from __future__ import annotations

import logging
import os
import sys

from lambda_protocol.log_format import configure_logging
from lambda_server.app import EXTENSION, Parts, create_app, make_invoker
from lambda_server.config import Config

logger = logging.getLogger(__name__)

_config = Config.from_environ(os.environ)
configure_logging(_config.log_level, structured=_config.logs_structured, program="lambda-server")
if "gunicorn.workers.sync" in sys.modules:  # gunicorn imports no other worker than its own
    logger.warning(
        "gunicorn runs its sync worker, which serves one call at a time and ends calls of more "
        "than 30 s; add -c python:lambda_server.gunicorn_conf"
    )

_invoker = make_invoker(_config)
application = create_app(_config, _invoker)
#: The name Flask's own tools look for.
app = application
_invoker.announce()
_parts: Parts = application.extensions[EXTENSION]
_parts.urls.source.start()
