"""Fixtures: the static executable, and a root folder that holds nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from devtools.static.__main__ import RESULT
from devtools.static.stages import CHECKOUT


@pytest.fixture(scope="session")
def executable() -> Path:
    """Give the file of RAPID_BINARY, else that of `make rapid`."""
    file = CHECKOUT / os.environ.get("RAPID_BINARY", RESULT)
    if not file.exists():
        pytest.skip(f"no {file.name} here; `make rapid` makes it")
    return file


@pytest.fixture
def empty_root(executable: Path, tmp_path: Path) -> Path:
    """Give a folder to be the root: rapid is its one file, and nobody may write there."""
    if os.getuid() != 0:
        pytest.skip("to change the root folder, one has to be root")
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(executable, root / "rapid")
    for folder in (root, *tmp_path.parents):
        if folder.stat().st_mode & 0o111 != 0o111:  # pytest's folders are for their owner alone
            folder.chmod(folder.stat().st_mode | 0o111)
    root.chmod(0o555)
    return root
