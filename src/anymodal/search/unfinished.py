"""What a run that is not over has embedded: `anymodal.embeddings.parts`, keyed by content.

The next run of the same classifier takes it over, whatever the files are called by then.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.core.fingerprint import fingerprint
from anymodal.embeddings.parts import Parts
from anymodal.search.store import Entry


class Unfinished:
    """The unfinished work in the folder of an index; the caller holds its lock.

    A part's row is the vector of the audio, then that of the image; NaN where there is none.
    """

    def __init__(self, index: Path, identity: Mapping[str, Any]) -> None:
        version = fingerprint(sorted(identity.items()))
        self._dim = int(identity["dim"])
        self._folder = index / "unfinished"
        # a folder an identity: a run of another classifier leaves this one's work alone
        folder = self._folder / version[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = Parts(folder, version, 2 * self._dim)

    def entries(self) -> list[Entry]:
        """What earlier runs finished, one entry a content, without a path."""
        entries = []
        for key, (part, row) in self._parts.known.items():
            sha256, kind, seconds = key.split("|")
            error = self._parts.errors.get(key)
            vectors: list[bytes | None] = [None, None]
            if error is None:
                both = np.split(self._parts.matrix(part)[row], 2)
                vectors = [None if np.isnan(vector[0]) else vector.tobytes() for vector in both]
            entries.append(Entry("", 0, 0, sha256, kind, float(seconds), error, *vectors))
        return entries

    def save(self, entries: Sequence[Entry]) -> None:
        """Save entries of distinct contents."""
        if entries:
            none = np.full(self._dim, np.nan, "<f4").tobytes()
            rows = [(e.audio or none) + (e.image or none) for e in entries if e.error is None]
            matrix = np.frombuffer(b"".join(rows), "<f4").reshape(-1, 2 * self._dim)
            keys = [f"{e.sha256}|{e.kind}|{e.seconds!r}" for e in entries]
            self._parts.append(keys, matrix, [entry.error for entry in entries])

    def clear(self) -> None:
        """Forget it, and what runs of other classifiers left."""
        shutil.rmtree(self._folder, ignore_errors=True)
