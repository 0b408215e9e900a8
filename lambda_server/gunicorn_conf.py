"""Gunicorn's settings for ``lambda_server.wsgi``; ``gunicorn.conf.py`` and ``serve`` use them.

The only module that does something when it is imported, besides ``wsgi``: gunicorn reads its
settings so. A wrong variable is one line and exit code 2, before any worker starts.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from lambda_protocol.address import EVERY_HOST, Address
from lambda_protocol.allocator import give_back_large_blocks
from lambda_protocol.descriptors import raise_descriptor_limit
from lambda_protocol.environ import BrokerAddress, ConfigError
from lambda_protocol.log_format import level_number
from lambda_protocol.terminal import has_terminal
from lambda_server.config import Config


def _check_options(broker: BrokerAddress) -> None:
    """Raise ``ConfigError`` if pika does not know an option of the URI."""
    from lambda_protocol.amqp_connection import connection_parameters

    connection_parameters(broker, name="lambda-server")


def _in_a_child(check: Callable[[], None]) -> int:
    """Return the exit code of a process that runs ``check``, so that what it imports goes again.

    The arbiter makes no call. pika would be a tenth of its memory.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 2
    try:
        check()
        code = 0
    except ConfigError as error:
        os.write(2, f"lambda-server: {error}\n".encode())
    except Exception:
        sys.excepthook(*sys.exc_info())
    os._exit(code)


try:
    _config = Config.from_environ(os.environ)
except ConfigError as error:
    sys.stderr.write(f"lambda-server: {error}\n")
    sys.exit(2)
if _config.broker is not None and _in_a_child(functools.partial(_check_options, _config.broker)):
    sys.exit(2)


raise_descriptor_limit()  # each call takes two: its caller's connection, and the broker's


def _binds(address: Address) -> list[str]:
    """Return what gunicorn has to bind for ``address``: its IPv6 sockets do as the kernel says."""
    binds = [str(address.available)]
    if binds == [str(Address(EVERY_HOST, address.port))]:
        with socket.socket(socket.AF_INET6) as probe:  # net.ipv6.bindv6only
            if probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                binds.append(f"0.0.0.0:{address.port}")
    return binds


#: Variables that say that the sockets are open already: an older arbiter's, or systemd's.
_INHERITED = {"GUNICORN_FD", "LISTEN_FDS"}

workers = _config.workers
bind = _binds(_config.address)
if _config.health_port is not None:
    bind += _binds(_config.address._replace(port=_config.health_port))
# gthread, but each connection keeps its thread; -k gthread works too, at twice the cost a call.
worker_class = (
    "lambda_server.PollingWorker" if _config.polls else "lambda_server.worker.ConnectionWorker"
)
threads = 64  # what -k gthread would use
worker_connections = 1000
keepalive = 75
# A call may run for 15 minutes, or as long as is set; a worker told to stop lets it end.
graceful_timeout = int(_config.invoke_timeout_s) + 30
# AWS takes a megabyte of request line and headers.
limit_request_line = 0
limit_request_fields = 512
limit_request_field_size = 1_048_576
logger_class = "lambda_server.gunicorn_log.GunicornLogger"
loglevel = logging.getLevelName(level_number(_config.log_level)).lower()
proc_name = "lambda-server"
# Its socket would be a file in the home folder, of no use here.
control_socket_disable = True

# Several workers add their figures up through files. prometheus_client reads the variable when it
# is imported, so it is set here, before any worker is.
_own_multiproc_dir: str | None = None
if workers > 1 and not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    _own_multiproc_dir = tempfile.mkdtemp(prefix="lambda-server-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _own_multiproc_dir


def on_starting(server: Any) -> None:
    """End with one line if a port is taken, and decide what SIGHUP means."""
    if not _INHERITED & os.environ.keys() and not server.cfg.reuse_port:
        _require_free(server.cfg.address)
    _stop_with_the_terminal(server)


def _require_free(addresses: list[object]) -> None:
    """Bind for a moment: gunicorn itself tries five times, with two lines each time."""
    for address in addresses:
        if isinstance(address, tuple):  # the others are Unix sockets and open descriptors
            try:
                Address(*address[:2]).require_free()
            except OSError as error:
                sys.stderr.write(
                    f"lambda-server: cannot listen on {error.strerror}; PORT, HEALTH_PORT and "
                    "INVOKE_API_HOST choose another address\n"
                )
                sys.exit(1)


def _stop_with_the_terminal(server: Any) -> None:
    """Let a closed terminal stop the server; any other SIGHUP reloads it.

    Under ``nohup`` a closed terminal reloads it too, and it goes on.
    """
    if not has_terminal() or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    reload = server.handle_hup

    def handle_hup() -> None:
        if has_terminal():
            reload()
        else:
            server.handle_term()

    server.handle_hup = handle_hup


def post_fork(_server: Any, _worker: Any) -> None:
    """Let the worker give payloads back to the system."""
    give_back_large_blocks()


def post_worker_init(_worker: Any) -> None:
    """Let the arbiter decide what SIGHUP means: a closed terminal sends it to workers as well."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def child_exit(_server: Any, worker: Any) -> None:
    """Take a worker that is gone out of the figures of what runs now."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    """Remove the figures' folder, if it is ours."""
    if _own_multiproc_dir is not None:
        shutil.rmtree(_own_multiproc_dir, ignore_errors=True)
