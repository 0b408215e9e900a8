"""Settings of ``gunicorn lambda_server.wsgi``, found in the working directory (or by ``-c``)."""

import os
import shutil
import sys
import tempfile

from lambda_protocol.environ import ConfigError
from lambda_server.config import Config

try:
    _config = Config.from_environ(os.environ)
except ConfigError as error:
    sys.stderr.write(f"lambda-server: {error}\n")
    sys.exit(2)

bind = f"{_config.host}:{_config.port}"
# gthread, but each connection keeps its thread; -k gthread works too, at twice the cost a call.
worker_class = "lambda_server.worker.ConnectionWorker"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
threads = 64  # what gthread would use
worker_connections = 1000
keepalive = 75
# A call may run for 15 minutes; a worker that is told to stop lets it end.
graceful_timeout = 930
# No control socket: its file in the home folder is of no use here.
control_socket_disable = True
# AWS takes a megabyte of request line and headers.
limit_request_line = 0
limit_request_fields = 512
limit_request_field_size = 1_048_576
accesslog = None
loglevel = "warning"
proc_name = "lambda-server"

# Several workers add their figures up through files. prometheus_client reads the variable when it
# is imported, so it is set here, before any worker is.
_own_multiproc_dir = None
if workers > 1 and not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    _own_multiproc_dir = tempfile.mkdtemp(prefix="lambda-server-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _own_multiproc_dir


def child_exit(server, worker):
    """Take a worker that is gone out of the figures of what runs now."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


def on_exit(server):
    """Remove the figures' folder, if it is ours."""
    if _own_multiproc_dir is not None:
        shutil.rmtree(_own_multiproc_dir, ignore_errors=True)
