"""An index on disk: a folder of files that replace each other all together.

index.json             format, the classifier's identity, the indexed folder, counts, what is told
                       of the graphs, and the names of the files below
rows-<n>.parquet       one row a medium and modality (`anymodal.search.entries`)
vectors-<n>.npy        float32 (rows, dim), unit length, beside those rows
skipped-<n>.parquet    files without a vector, with the reason
graph-<modality>-<n>.faiss, nodes-<modality>-<n>.npy   where searching is approximate
unfinished/            what an interrupted run has done (`anymodal.search.journal`)

Nothing is pickled. New files are written under a new number, then index.json is replaced, then the
files it no longer names are removed: whoever opens the index sees the old one or the new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import atomic_path, read_json, write_json
from anymodal.search.entries import ROWS, SKIPPED, Entry, rows_table

FORMAT = 1
HEADER = "index.json"
UNFINISHED = "unfinished"
_OURS = re.compile(r"(rows|skipped|vectors|(graph|nodes)-(audio|image))-\d+\.(parquet|npy|faiss)")
_TEMPORARY = re.compile(r"\.(rows|skipped|vectors|graph|nodes|index)\b.*\.tmp\.\w+")
_BLOCK = 8192


@dataclass(frozen=True)
class Contents:
    """An index as it lies on disk."""

    folder: Path
    header: dict[str, Any]
    rows: pa.Table
    """`anymodal.search.entries.ROWS`."""
    vectors: np.ndarray
    """float32 (rows, dim), a memory map."""
    skipped: pa.Table
    """`anymodal.search.entries.SKIPPED`."""

    @property
    def counts(self) -> dict[Modality, int]:
        """Rows a modality."""
        return {modality: int(self.header["counts"][modality]) for modality in MODALITIES}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the right to write the index in `folder`; a second writer gets an `AnymodalError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise AnymodalError(
                f"another process is writing the index in {folder}; wait until it ends, or give "
                "another folder with --index"
            ) from None
    except OSError as error:
        raise AnymodalError(
            f"cannot write {error.filename or folder}: {error.strerror or error}; finished work "
            "is kept: make room or give access, and run the same command again"
        ) from error


def exists(folder: Path) -> bool:
    """Whether an index is there."""
    return (folder / HEADER).is_file()


def read(folder: Path) -> Contents:
    """Open the index in `folder`. Raises `AnymodalError` where there is none, or a damaged one."""
    for attempt in range(3):
        header = _read_header(folder)
        try:
            return _read_files(folder, header)
        except FileNotFoundError as error:
            # replaced while it was being read, unless it is the same still
            if attempt == 2 or _read_header(folder) == header:
                raise damaged(folder, f"has no {Path(error.filename).name}") from error
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            told = " ".join(str(error).split())
            raise damaged(folder, f"cannot be read ({told})") from error
    raise AssertionError


def write(
    folder: Path,
    facts: Mapping[str, Any],
    rows: Sequence[tuple[Entry, Modality]],
    skipped: pa.Table,
) -> Contents:
    """Replace the tables and the matrix of the index; the caller holds `locked`.

    `facts` are what the header tells beside. The index that was there stays the one that is found
    until `publish` is called.
    """
    number = next_number(folder)
    names = {
        "rows": f"rows-{number}.parquet",
        "vectors": f"vectors-{number}.npy",
        "skipped": f"skipped-{number}.parquet",
    }
    table = rows_table(rows)
    for name, part in (("rows", table), ("skipped", skipped)):
        with atomic_path(folder / names[name]) as temporary:
            pq.write_table(part, temporary)
    dim = int(facts["identity"]["dim"])
    with atomic_path(folder / names["vectors"]) as temporary, temporary.open("wb") as file:
        shape = (len(rows), dim)
        descr = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, descr)
        for start in range(0, len(rows), _BLOCK):
            block = [entry.vectors[m] for entry, m in rows[start : start + _BLOCK]]
            file.write(np.asarray(block, dtype="<f4").reshape(-1, dim).tobytes())
    header = {
        "format": FORMAT,
        **facts,
        "rows": len(rows),
        "counts": {m: sum(of == m for _, of in rows) for m in MODALITIES},
        "skipped": len(skipped),
        "graphs": {},
        "names": names,
    }
    return Contents(folder, header, table, _matrix(folder / names["vectors"]), skipped)


def publish(contents: Contents, header: Mapping[str, Any]) -> Contents:
    """Make `header` and the files that it names the index."""
    write_json(contents.folder / HEADER, dict(header))
    return replace(contents, header=dict(header))


def tidy(folder: Path, header: Mapping[str, Any]) -> None:
    """Remove the index's files that `header` does not name; the caller holds `locked`."""
    named = {*header["names"].values()}
    for graph in header["graphs"].values():
        named |= {graph["file"], graph["nodes"]}
    for path in folder.iterdir():
        unnamed = _OURS.fullmatch(path.name) and path.name not in named
        if unnamed or _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def refuse_root(folder: Path, indexed: str, root: Path) -> None:
    """Raise `AnymodalError` where `indexed` is there and another folder than `root`.

    Where it is not there, it was moved: paths within it are still right.
    """
    if indexed != str(root) and Path(indexed).is_dir():
        raise AnymodalError(
            f"{folder} holds the index of {indexed}; give another folder with --index, or replace "
            "it with --rebuild"
        )


def next_number(folder: Path) -> int:
    """A number that no file of the index has."""
    numbers = [
        int(path.stem.rpartition("-")[2]) for path in folder.iterdir() if _OURS.fullmatch(path.name)
    ]
    return max(numbers, default=0) + 1


def damaged(folder: Path, what: str) -> AnymodalError:
    """The error for an index that cannot be used."""
    return AnymodalError(f"the index in {folder} {what}; build it anew with --rebuild")


def _read_header(folder: Path) -> dict[str, Any]:
    if not exists(folder):
        raise AnymodalError(f"no index at {folder}; make one with `anymodal index FOLDER`")
    try:
        header = read_json(folder / HEADER)
        form = header["format"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise damaged(folder, f"has an unreadable {HEADER}") from error
    if form != FORMAT:
        raise AnymodalError(
            f"the index in {folder} has format {form}, this version reads {FORMAT}; build it anew "
            "with --rebuild"
        )
    return header


def _read_files(folder: Path, header: dict[str, Any]) -> Contents:
    names = header["names"]
    rows = pq.read_table(folder / names["rows"], memory_map=False)
    skipped = pq.read_table(folder / names["skipped"], memory_map=False)
    vectors = _matrix(folder / names["vectors"])
    shape = (int(header["rows"]), int(header["identity"]["dim"]))
    if vectors.shape != shape or vectors.dtype != np.float32 or len(rows) != shape[0]:
        raise damaged(folder, "has tables that do not belong together")
    if not rows.schema.equals(ROWS) or not skipped.schema.equals(SKIPPED):
        raise damaged(folder, "has tables with other columns")
    contents = Contents(folder, header, rows, vectors, skipped)
    if sum(contents.counts.values()) != shape[0]:
        raise damaged(folder, f"has a {HEADER} that counts other rows")
    return contents


def _matrix(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
