"""An index on disk: a folder with one table, and graphs where searching is approximate.

index.parquet          a row per file, by path (`schema`); its metadata hold the `Header` as JSON
<modality>-<n>.faiss   FAISS's HNSW graph of the rows that have the modality
unfinished/            what an interrupted run has embedded (`anymodal.search.unfinished`)

A new version is written beside the old one and renamed over it; its graphs are there by then, and
those of the old one are removed afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Record
from anymodal.core.storage import atomic_path
from anymodal.search.graphs import GraphFacts
from anymodal.search.nearest import import_faiss

FORMAT = 2
TABLE = "index.parquet"
_HEADER = b"anymodal"
_FIRST_FORMAT = re.compile(r"index\.json|(rows|skipped|vectors|graph-\w+|nodes-\w+)-\d+\.\w+")
_GRAPH = re.compile(r"(audio|image)-(\d+)\.faiss")


class Header(Record):
    """What an index is of, and what was made for it."""

    format: int = FORMAT
    root: str
    """The indexed folder."""
    identity: dict[str, Any]
    """See `anymodal.search.identity`."""
    ann: bool | None = None
    """Whether graphs were asked for; None: where the index is large."""
    anymodal: str
    """The version that wrote it."""
    graphs: dict[Modality, GraphFacts] = Field(default={})


@dataclass(frozen=True)
class Entry:
    """One file: its vectors, or the reason why it has none."""

    path: str
    """Relative to the indexed folder, with `/`."""
    size: int | None
    """Bytes; None: the next run looks at the file again."""
    mtime_ns: int
    """Time of its last change, in nanoseconds of Unix time."""
    sha256: str | None
    """Of its content; None where that was not read."""
    kind: str = ""
    """`audio`, `image`, `video`; empty for what has no vector."""
    seconds: float = 0.0
    """Length; 0 for an image."""
    error: str | None = None
    """Why it has no vector, in one line."""
    audio: bytes | None = None
    """Vector of its audio: little-endian float32 (dim,) of length 1."""
    image: bytes | None = None
    """The same of its images."""

    @property
    def embedded(self) -> bool:
        """Whether it has a vector."""
        return self.audio is not None or self.image is not None


def schema(dim: int) -> pa.Schema:
    """The table's columns: those of `Entry`."""
    vector = pa.binary(4 * dim)  # of one length: read twenty times as fast as lists of numbers
    types = {"size": pa.int64(), "mtime_ns": pa.int64(), "seconds": pa.float64()}
    types |= {"audio": vector, "image": vector}
    return pa.schema([(each.name, types.get(each.name, pa.string())) for each in fields(Entry)])


@dataclass(frozen=True)
class Contents:
    """An index in memory."""

    header: Header
    table: pa.Table

    @classmethod
    def of(cls, header: Header, entries: Iterable[Entry]) -> Contents:
        """Entries as a table, by path."""
        rows = [vars(entry) for entry in sorted(entries, key=lambda entry: entry.path)]
        return cls(header, pa.Table.from_pylist(rows, schema(int(header.identity["dim"]))))

    @cached_property
    def vectors(self) -> dict[Modality, np.ndarray]:
        """float32 (rows, dim) a modality, by path."""
        dim = int(self.header.identity["dim"])
        vectors = {}
        for modality in MODALITIES:
            column = self.table[modality].drop_null().combine_chunks()
            # Arrow keeps values of one length side by side: a view of them costs no copy
            data = column.buffers()[1] or b""
            floats = np.frombuffer(data, "<f4", dim * len(column), 4 * dim * column.offset)
            vectors[modality] = floats.reshape(-1, dim)
        return vectors

    def rows(self, modality: Modality) -> pd.DataFrame:
        """The files that have the modality, without vectors, beside `vectors`."""
        table = self.table.filter(self.table[modality].is_valid())
        return table.drop_columns([*MODALITIES]).to_pandas()


def exists(folder: Path) -> bool:
    """Whether an index is there, of whatever format."""
    return (folder / TABLE).is_file() or (folder / "index.json").is_file()


def read(folder: Path) -> Contents:
    """Open the index in `folder`. Raises `AnymodalError` where there is none, or a damaged one."""
    if not exists(folder):
        raise AnymodalError(f"no index at {folder}; make one with `anymodal index FOLDER`")
    if not (folder / TABLE).is_file():
        raise unusable(folder, "has an older format")
    try:
        table = pq.read_table(folder / TABLE, memory_map=False)
        stated = json.loads(table.schema.metadata[_HEADER])
        written = stated["format"]
        header = Header.model_validate(stated) if written == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise unusable(folder, f"has a damaged {TABLE}") from error
    if header is None:
        raise unusable(folder, f"has format {written}, this version reads {FORMAT}")
    if not table.schema.equals(schema(int(header.identity["dim"]))):
        raise unusable(folder, f"has other columns in {TABLE}")
    return Contents(header, table)


def write(folder: Path, contents: Contents) -> None:
    """Make `contents` the index in `folder`, and remove what it does not name.

    The caller holds `locked`.
    """
    header = contents.header
    table = contents.table.replace_schema_metadata({_HEADER: header.model_dump_json()})
    with atomic_path(folder / TABLE) as temporary:
        pq.write_table(table, temporary, compression="none", use_dictionary=False)
    graphs = {facts.file for facts in header.graphs.values()}
    for path in folder.iterdir():
        graph = _GRAPH.fullmatch(path.name) and path.name not in graphs
        if graph or _FIRST_FORMAT.fullmatch(path.name) or ".tmp" in path.suffixes:
            path.unlink(missing_ok=True)


def read_graph(folder: Path, facts: GraphFacts) -> Any:
    """A graph of the index in `folder`."""
    faiss = import_faiss()
    try:
        return faiss.read_index(str(folder / facts.file))
    except RuntimeError as error:  # FAISS has no errors of its own
        raise unusable(folder, f"has no readable {facts.file}") from error


def write_graph(folder: Path, modality: Modality, graph: Any) -> str:
    """Write a graph under a new name, which is returned."""
    faiss = import_faiss()
    numbers = [int(m[2]) for path in folder.iterdir() if (m := _GRAPH.fullmatch(path.name))]
    file = f"{modality}-{max(numbers, default=0) + 1}.faiss"
    with atomic_path(folder / file) as temporary:
        faiss.write_index(graph, str(temporary))
    return file


def unusable(folder: Path, what: str) -> AnymodalError:
    """The error for an index that has to be built anew."""
    return AnymodalError(
        f"the index in {folder} {what}; build it anew: `anymodal index FOLDER --rebuild`"
    )
