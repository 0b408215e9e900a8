"""Metadata lives in setup.cfg, all but the repository's address: only a clone knows it."""

from __future__ import annotations

import email
import re
import subprocess
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent


def repository() -> str | None:
    """Return the web address of the repository that this is built from; None if it has none.

    A source distribution was told by the clone that it was made in.
    """
    if (ROOT / "PKG-INFO").exists():
        information = email.message_from_string((ROOT / "PKG-INFO").read_text("utf-8"))
        urls = dict(line.split(", ", 1) for line in information.get_all("Project-URL", []))
        return urls.get("Source")
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        told = subprocess.run(  # noqa: S603 - git
            command, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return web_address(told.stdout.strip())


def web_address(remote: str) -> str | None:
    """Return the address that a browser takes, without credentials; None for a folder."""
    remote = remote.removesuffix("/").removesuffix(".git")
    if match := re.fullmatch(r"(https?://)(?:[^/@]*@)?([^/@]+/.+)", remote):
        return match[1] + match[2]
    if match := re.fullmatch(r"(?:ssh://)?(?:[^/@]*@)([\w.-]+)(?::\d+/|[:/])(.+)", remote):
        return f"https://{match[1]}/{match[2]}"
    return None


SOURCE = repository()
setup(project_urls={"Source": SOURCE} if SOURCE else {})
