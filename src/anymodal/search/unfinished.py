"""What a run that is not over has embedded: `anymodal.embeddings.parts`, keyed by content.

The next run of the same classifier takes it over, whatever the files are called by then.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.core.fingerprint import fingerprint
from anymodal.embeddings.parts import Parts
from anymodal.search.store import Entry

FOLDER = "unfinished"
FILES = 256
"""Files after which they are saved."""
SECONDS = 10.0
"""Seconds after which they are saved."""


class Unfinished:
    """The unfinished work in the folder of an index; the caller holds its lock."""

    def __init__(self, index: Path, identity: Mapping[str, Any]) -> None:
        version = fingerprint(sorted(identity.items()))
        self._dim = int(identity["dim"])
        # a folder an identity: a run of another classifier leaves this one's work alone
        self._folder = index / FOLDER
        folder = self._folder / version[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = Parts(folder, version, self._dim)
        self._waiting: list[Entry] = []
        self._saved_at = time.monotonic()

    def entries(self) -> list[Entry]:
        """What earlier runs finished, one entry a content, without a path."""
        entries: dict[str, Entry] = {}
        for key, (part, row) in self._parts.known.items():
            sha256, modality, kind, seconds = key.split("|")
            blank = Entry("", 0, 0, sha256, kind, float(seconds), self._parts.errors.get(key))
            entry = entries.setdefault(sha256, blank)
            if modality == "audio" or modality == "image":
                entry.vectors[modality] = self._parts.matrix(part)[row]
        return list(entries.values())

    def add(self, entries: Iterable[Entry]) -> None:
        """Note finished entries; saved every `FILES` of them and every `SECONDS`."""
        self._waiting += entries
        if len(self._waiting) >= FILES or time.monotonic() - self._saved_at >= SECONDS:
            self.save()

    def save(self) -> None:
        """Save what is noted."""
        self._saved_at = time.monotonic()
        keys, errors, vectors = [], [], []
        for entry in self._waiting:
            for modality in entry.vectors or [""]:
                keys.append(f"{entry.sha256}|{modality}|{entry.kind}|{entry.seconds!r}")
                errors.append(entry.error)
            vectors += entry.vectors.values()
        if keys:
            matrix = np.array(vectors, dtype=np.float32).reshape(-1, self._dim)
            self._parts.append(keys, matrix, errors)
        self._waiting = []

    def clear(self) -> None:
        """Forget it, and what runs of other classifiers left."""
        shutil.rmtree(self._folder, ignore_errors=True)
