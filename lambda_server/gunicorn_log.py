"""Gunicorn's own log lines and the access log, in the form of all other lines of the server.

``LOG_LEVEL`` and ``USE_STRUCTURED_LOGGING`` reach gunicorn by this class. Its flags keep their
meaning: ``--error-logfile``, ``--access-logfile``, ``--access-logformat``, and ``--log-config``,
which replaces all that is set here.
"""

from __future__ import annotations

import datetime
import logging
import os
from typing import Any, Final

from gunicorn.glogging import Logger, SafeAtoms

from lambda_protocol.address import peer_host
from lambda_protocol.environ import Environ
from lambda_protocol.log_format import make_formatter

PROGRAM: Final = "lambda-server"


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn's logger with our formatters. Thread-safe, as the loggers of Python are."""

    def setup(self, cfg: Any) -> None:
        """Open the logs that ``cfg`` names; gunicorn calls this again when it reloads."""
        self._is_structured = Environ(os.environ).flag("USE_STRUCTURED_LOGGING")
        super().setup(cfg)
        if cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json:
            return
        formatter = make_formatter(PROGRAM, structured=self._is_structured)
        for log in [self.error_log, *([self.access_log] if self._is_structured else [])]:
            for handler in log.handlers:
                if isinstance(handler, logging.StreamHandler):  # a file too; syslog has its own
                    handler.setFormatter(formatter)

    def access(
        self, resp: Any, req: Any, environ: dict[str, Any], request_time: datetime.timedelta
    ) -> None:
        """Log one request, if an access log is asked for.

        The plain line is gunicorn's, as ``--access-logformat`` says. Neither form has a payload
        or a query string, which may hold a credential.
        """
        if not self.access_log.hasHandlers():
            return
        atoms = _PrintableAtoms(self.atoms(resp, req, environ, request_time))
        if self._is_structured:
            self.access_log.info("request", extra=_members(atoms, request_time))
        else:
            self.access_log.info(self.cfg.access_log_format, atoms)

    def atoms(
        self, resp: Any, req: Any, environ: dict[str, Any], request_time: datetime.timedelta
    ) -> dict[str, Any]:
        """Return the values of an access log's line by gunicorn's names, without query strings."""
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        target = _without_query(environ["RAW_URI"])
        atoms["U"] = target  # undecoded: a line end in a path must not begin a line
        atoms["r"] = f"{environ['REQUEST_METHOD']} {target} {environ['SERVER_PROTOCOL']}"
        atoms["q"] = ""
        atoms["h"] = peer_host(atoms["h"])
        atoms["f"] = _without_query(atoms["f"])
        return atoms


class _PrintableAtoms(SafeAtoms):  # type: ignore[misc]
    """Values for ``%``; a control character is escaped, a value that is missing is ``-``."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if isinstance(value, str) and not value.isprintable():
            return value.encode("unicode_escape").decode("ascii")
        return value


def _members(atoms: _PrintableAtoms, request_time: datetime.timedelta) -> dict[str, Any]:
    return {
        "remote_address": atoms["h"],
        "method": atoms["m"],
        "path": atoms["U"],
        "protocol": atoms["H"],
        "status": int(atoms["s"]),
        "response_bytes": atoms["B"],
        "duration_ms": round(request_time.total_seconds() * 1000, 3),
        "request_id": atoms["{x-amzn-requestid}o"],
        "user_agent": atoms["a"],
    }


def _without_query(url: str) -> str:
    return url.partition("?")[0]
