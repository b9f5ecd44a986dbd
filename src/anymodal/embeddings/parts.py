"""Parts: finished chunks of an extraction that has not ended, one .npz a chunk."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anymodal.core.storage import atomic_path
from anymodal.embeddings.cache import FAILED
from anymodal.encoders.base import Encoder


class Parts:
    """The parts of one encoder in its work folder; the caller holds the folder's lock.

    Opening removes parts of another version of the encoder, and files that are no whole part.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self._folder = folder
        self._encoder = encoder
        self.known: dict[str, tuple[int, int]] = {}
        """clip id → (part, row), with row `FAILED` for a failed clip."""
        self.errors: dict[str, str] = {}
        """clip id → reason, of the failed clips."""
        self._next = 0
        self._loaded: tuple[int, np.ndarray] | None = None
        numbers = (int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal())
        for number in sorted(numbers):
            self._next = number + 1
            self._read(number)

    def append(
        self, clip_ids: Sequence[str], matrix: np.ndarray, errors: Sequence[str | None]
    ) -> None:
        """Save a chunk: `matrix` holds a row for every clip whose error is None, in order."""
        good = np.array([error is None for error in errors], dtype=bool)
        rows = np.where(good, np.cumsum(good) - 1, FAILED)
        reasons = [error or "" for error in errors]
        with atomic_path(self._path(self._next)) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                clip_ids=np.array(clip_ids, dtype=str),
                rows=rows,
                errors=np.array(reasons, dtype=str),
                version=np.array(self._encoder.version),
                matrix=matrix,
            )
        self._learn(self._next, clip_ids, rows, reasons)
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
                clip_ids, rows = content["clip_ids"], content["rows"]
                errors, version = content["errors"], content["version"]
                matrix = content["matrix"]  # read in full: its checksum tells a damaged file
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink()
            return
        if str(version) != self._encoder.version or matrix.shape[1:] != (self._encoder.dim,):
            path.unlink()
            return
        self._learn(number, clip_ids.tolist(), rows, errors.tolist())

    def _learn(
        self, number: int, clip_ids: Sequence[str], rows: np.ndarray, errors: Sequence[str]
    ) -> None:
        for clip_id, row, error in zip(clip_ids, rows.tolist(), errors, strict=True):
            self.known[clip_id] = (number, row)
            self.errors.pop(clip_id, None)
            if row == FAILED:
                self.errors[clip_id] = error

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npz"
