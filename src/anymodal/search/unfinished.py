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
        entries: dict[str, dict[str, Any]] = {}
        for key, (part, row) in self._parts.known.items():
            sha256, modality, kind, seconds = key.split("|")
            content = entries.setdefault(sha256, {"kind": kind, "seconds": float(seconds)})
            if modality:
                content[modality] = self._parts.matrix(part)[row].tobytes()
            else:
                content["error"] = self._parts.errors[key]
        return [Entry("", 0, 0, sha256, **content) for sha256, content in entries.items()]

    def save(self, entries: Sequence[Entry]) -> None:
        """Save entries of distinct contents."""
        keys, vectors, errors = [], [], []
        for entry in entries:
            for modality, vector in (("audio", entry.audio), ("image", entry.image), ("", b"")):
                if vector if modality else entry.error:
                    keys.append(f"{entry.sha256}|{modality}|{entry.kind}|{entry.seconds!r}")
                    errors.append(None if modality else entry.error)
                    vectors.append(vector or b"")
        if keys:
            matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, self._dim)
            self._parts.append(keys, matrix, errors)

    def clear(self) -> None:
        """Forget it, and what runs of other classifiers left."""
        shutil.rmtree(self._folder, ignore_errors=True)
