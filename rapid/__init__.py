"""The Lambda Runtime API daemon: one function, its runtimes, and the APIs beside them."""

from __future__ import annotations

from lambda_protocol import __version__ as __version__
