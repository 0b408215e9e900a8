"""The extension ``tests/functions/recorder-extension``, in a folder of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import RECORDER_EXTENSION, whole_lines


class RecorderExtension:
    """What a rapid needs to run it, and what it has written."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "extensions"
        self.directory.mkdir()
        (self.directory / "recorder").symlink_to(RECORDER_EXTENSION)
        self.file = folder / "record"

    @property
    def environ(self) -> dict[str, Any]:
        """The settings that rapid is to be given."""
        return {"RAPID_EXTENSIONS_DIR": str(self.directory), "RECORDER_FILE": str(self.file)}

    def written(self, kind: str) -> list[Any]:
        """Return what was written of this kind: ``started``, ``environ``, ``event``, ``signal``."""
        entries = map(json.loads, whole_lines(self.file))
        return [entry[kind] for entry in entries if kind in entry]
