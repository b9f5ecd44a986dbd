"""What an index knows of one file, and its tables.

A medium has one vector a modality; a film with sound has two. A file that is no medium, or is
broken, has the reason instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from anymodal.core.modality import MODALITIES, Modality

ROWS = pa.schema(
    [
        ("path", pa.string()),
        ("modality", pa.string()),
        ("kind", pa.string()),
        ("seconds", pa.float64()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""One row a medium and modality, beside the matrix of vectors: sounds first, then by path."""
SKIPPED = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("error", pa.string()),
    ]
)
"""Files without a vector, by path; `size` is null where trying again may help."""


@dataclass(frozen=True)
class Entry:
    """One file."""

    path: str
    """Relative to the indexed folder, with `/`."""
    size: int | None
    """Bytes; None: what was found does not count for the next run."""
    mtime_ns: int
    """Time of its last change, in nanoseconds of Unix time."""
    sha256: str | None
    """Of its content; None where that was not read."""
    kind: str = ""
    """`audio`, `image`, `video`; empty for what has no vector."""
    seconds: float = 0.0
    """Length; 0 for a still picture."""
    vectors: dict[Modality, np.ndarray] = field(default_factory=dict, compare=False)
    """float32 (dim,) a modality, of length 1."""
    error: str | None = None
    """Why it has no vector, in one line."""


def in_order(entries: Iterable[Entry]) -> list[tuple[Entry, Modality]]:
    """The rows that entries make, in the order of the table."""
    media = sorted((e for e in entries if e.error is None), key=lambda entry: entry.path)
    return [(entry, m) for m in MODALITIES for entry in media if m in entry.vectors]


def rows_table(rows: Sequence[tuple[Entry, Modality]]) -> pa.Table:
    """The table `ROWS`."""
    columns: dict[str, list[object]] = {
        name: [getattr(entry, name) for entry, _ in rows]
        for name in ROWS.names
        if name != "modality"
    }
    columns["modality"] = [modality for _, modality in rows]
    return pa.table(columns, schema=ROWS)


def skipped_table(entries: Iterable[Entry]) -> pa.Table:
    """The table `SKIPPED`."""
    skipped = sorted((e for e in entries if e.error is not None), key=lambda entry: entry.path)
    columns = {name: [getattr(entry, name) for entry in skipped] for name in SKIPPED.names}
    return pa.table(columns, schema=SKIPPED)


def entries_of(rows: pa.Table, vectors: np.ndarray, skipped: pa.Table) -> list[Entry]:
    """The entries behind both tables and the matrix; vectors are views of it."""
    vectors = np.asarray(vectors)  # a row of a memory map is ten times as slow to take
    entries: dict[str, Entry] = {}
    for place, row in enumerate(rows.to_pylist()):
        modality = row.pop("modality")
        entry = entries.setdefault(row["path"], Entry(**row))
        entry.vectors[modality] = vectors[place]
    return [*entries.values(), *(Entry(**row) for row in skipped.to_pylist())]
