"""Finished work of a run that is not over: small files that are whole or absent.

`unfinished/run.json` tells which classifier and folder the work is of, and each
`unfinished/part-<n>.parquet` holds entries with their vectors. The next run takes them over.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES
from anymodal.core.storage import atomic_path, read_json, write_json
from anymodal.search.entries import Entry
from anymodal.search.identity import difference
from anymodal.search.store import UNFINISHED, refuse_root

FILES = 256
"""Files after which they are saved."""
SECONDS = 10.0
"""Seconds after which they are saved."""
_PLAIN = ("path", "size", "mtime_ns", "sha256", "kind", "seconds", "error")
_PART = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("kind", pa.string()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
        *((modality, pa.list_(pa.float32())) for modality in MODALITIES),
    ]
)


class Journal:
    """The unfinished work in the folder of an index; the caller holds its lock.

    Work of another classifier or folder is refused with an `AnymodalError`. With `rebuild`, work is
    taken over only if it is of these and of a run that was to build all anew too.
    """

    def __init__(self, index: Path, identity: Mapping[str, Any], root: Path, rebuild: bool) -> None:
        self._folder = index / UNFINISHED
        self._waiting: list[Entry] = []
        self._saved_at = time.monotonic()
        told = self._told()
        differs = difference(identity, told["identity"]) if told else ""
        if told and rebuild and (differs or told["root"] != str(root) or not told["rebuild"]):
            told = None
        elif told:
            if differs:
                raise AnymodalError(
                    f"the unfinished index in {index} is of another classifier ({differs}); give "
                    "that one with --model, or build the index anew with --rebuild"
                )
            refuse_root(index, told["root"], root)
        if told is None:
            self.clear()
            note = {"identity": identity, "root": str(root), "rebuild": rebuild}
            write_json(self._folder / "run.json", note)
        self.entries = [entry for part in sorted(self._parts()) for entry in _read_part(part)]
        """What earlier runs finished, the newest last."""
        self._number = max((_number(part) for part in self._parts()), default=0)

    def add(self, entries: Iterable[Entry]) -> None:
        """Note finished entries; saved every `FILES` of them and every `SECONDS`."""
        self._waiting += entries
        if len(self._waiting) >= FILES or time.monotonic() - self._saved_at >= SECONDS:
            self.save()

    def save(self) -> None:
        """Save what is noted."""
        self._saved_at = time.monotonic()
        if not self._waiting:
            return
        columns: dict[str, list[Any]] = {
            name: [getattr(entry, name) for entry in self._waiting] for name in _PLAIN
        }
        for modality in MODALITIES:
            columns[modality] = [entry.vectors.get(modality) for entry in self._waiting]
        self._number += 1
        with atomic_path(self._folder / f"part-{self._number:06d}.parquet") as temporary:
            pq.write_table(pa.table(columns, schema=_PART), temporary)
        self._waiting = []

    def clear(self) -> None:
        """Forget it all."""
        # the note first: parts alone are nothing
        (self._folder / "run.json").unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _parts(self) -> Iterable[Path]:
        return self._folder.glob("part-*.parquet")

    def _told(self) -> dict[str, Any] | None:
        try:
            told = read_json(self._folder / "run.json")
            return {
                "identity": dict(told["identity"]),
                "root": str(told["root"]),
                "rebuild": bool(told["rebuild"]),
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _number(part: Path) -> int:
    return int(part.stem.removeprefix("part-"))


def _read_part(path: Path) -> list[Entry]:
    try:
        table = pq.read_table(path, memory_map=False)
        if not table.schema.equals(_PART):
            return []
    except (OSError, ValueError, pa.ArrowInvalid):
        return []  # damaged: that work is done again
    entries = []
    for row in table.to_pylist():
        vectors = {
            modality: np.asarray(values, dtype=np.float32)
            for modality in MODALITIES
            if (values := row.pop(modality)) is not None
        }
        entries.append(Entry(**row, vectors=vectors))
    return entries
