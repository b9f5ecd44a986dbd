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
    """The unfinished work in the folder of an index; the caller holds its lock."""

    def __init__(self, index: Path, identity: Mapping[str, Any]) -> None:
        version = fingerprint(sorted(identity.items()))
        self._dim = int(identity["dim"])
        self._folder = index / "unfinished"
        # a folder an identity: a run of another classifier leaves this one's work alone
        folder = self._folder / version[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = Parts(folder, version, self._dim)

    def entries(self) -> list[Entry]:
        """What earlier runs finished, one entry a content, without a path."""
        entries: dict[str, Entry] = {}
        for key, (part, row) in self._parts.known.items():
            sha256, modality, kind, seconds = key.split("|")
            blank = Entry("", 0, 0, sha256, kind, float(seconds), self._parts.errors.get(key))
            entry = entries.setdefault(sha256, blank)
            if entry.error is None:
                vector = self._parts.matrix(part)[row]
                entry.vectors["audio" if modality == "audio" else "image"] = vector
        return list(entries.values())

    def save(self, entries: Sequence[Entry]) -> None:
        """Save entries of distinct contents."""
        rows = [(entry, m) for entry in entries for m in entry.vectors or ("",)]
        if rows:
            keys = [f"{e.sha256}|{m}|{e.kind}|{e.seconds!r}" for e, m in rows]
            vectors = [vector for entry in entries for vector in entry.vectors.values()]
            matrix = np.array(vectors, dtype=np.float32).reshape(-1, self._dim)
            self._parts.append(keys, matrix, [entry.error for entry, _ in rows])

    def clear(self) -> None:
        """Forget it, and what runs of other classifiers left."""
        shutil.rmtree(self._folder, ignore_errors=True)
