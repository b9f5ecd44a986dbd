"""An append-only log of finished work, from which a killed run resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from anymodal.core.errors import AnymodalError


class Journal:
    """JSON lines, each on disk when `append` returns.

    `entries` are those read at opening, then those appended. A last line that a kill cut short is
    dropped. Raises `AnymodalError` when a whole line is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.entries: list[dict[str, Any]] = []
        content = self.path.read_bytes() if self.path.is_file() else b""
        self._size = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._size].splitlines(), start=1):
            try:
                self.entries.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise AnymodalError(
                    f"{self.path}: line {number} is damaged; remove that line and run again"
                ) from error

    def append(self, entry: dict[str, Any]) -> None:
        """Add an entry; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        with self.path.open("ab") as file:
            if file.tell() != self._size:
                file.truncate(self._size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(line)
        self.entries.append(entry)
