"""Parts: finished chunks of work that has not ended, one .npz a chunk."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anymodal.core.storage import atomic_path
from anymodal.embeddings.cache import FAILED


class Parts:
    """The parts in `folder`, whose lock the caller holds.

    A part holds rows (n, `dim`) of distinct keys: clip ids, or whatever names a content. Opening
    removes parts of another `version`, and files that are no whole part.
    """

    def __init__(self, folder: Path, version: str, dim: int) -> None:
        self._folder = folder
        self._version, self._dim = version, dim
        self.known: dict[str, tuple[int, int]] = {}
        """key → (part, row), with row `FAILED` for what failed."""
        self.errors: dict[str, str] = {}
        """key → reason, of what failed."""
        self._next = 0
        self._loaded: tuple[int, np.ndarray] | None = None
        numbers = (int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal())
        for number in sorted(numbers):
            self._next = number + 1
            self._read(number)

    def append(self, keys: Sequence[str], matrix: np.ndarray, errors: Sequence[str | None]) -> None:
        """Save a chunk: `matrix` holds a row for every key whose error is None, in order."""
        good = np.array([error is None for error in errors], dtype=bool)
        rows = np.where(good, np.cumsum(good) - 1, FAILED)
        reasons = [error or "" for error in errors]
        with atomic_path(self._path(self._next)) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                keys=np.array(keys, dtype=str),
                rows=rows,
                errors=np.array(reasons, dtype=str),
                version=np.array(self._version),
                matrix=matrix,
            )
        self._learn(self._next, keys, rows, reasons)
        self._next += 1

    def matrix(self, part: int) -> np.ndarray:
        """The matrix of a part; the last one asked for stays in memory."""
        if self._loaded is None or self._loaded[0] != part:
            with np.load(self._path(part), allow_pickle=False) as content:
                self._loaded = (part, content["matrix"])
        return self._loaded[1]

    def _read(self, number: int) -> None:
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as content:
                # the matrix is read in full: its checksum shows whether the file is damaged
                held = {name: content[name] for name in content.files}
            whole = held["version"] == self._version and held["matrix"].shape[1:] == (self._dim,)
            keys, rows, errors = held["keys"], held["rows"], held["errors"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            whole = False
        if whole:
            self._learn(number, keys.tolist(), rows, errors.tolist())
        else:
            path.unlink()

    def _learn(
        self, number: int, keys: Sequence[str], rows: np.ndarray, errors: Sequence[str]
    ) -> None:
        for key, row, error in zip(keys, rows.tolist(), errors, strict=True):
            self.known[key] = (number, row)
            self.errors.pop(key, None)
            if row == FAILED:
                self.errors[key] = error

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"
