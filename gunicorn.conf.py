"""Found by ``gunicorn lambda_server.wsgi`` in the working directory."""

from lambda_server.gunicorn_conf import *  # noqa: F403
