"""Writing the embedding cache: one writer an encoder, and all three files or none.

See `anymodal.embeddings.cache` for the files. A writer holds `locked`, which also completes what
an earlier writer left half done, and replaces the files with `write_embeddings`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.locking import exclusive
from anymodal.core.storage import atomic_path, write_json
from anymodal.embeddings.cache import INDEX_SCHEMA, STAGED, EmbeddingNote, work_folder

LOCK = "lock"
_SUFFIXES = (".npy", ".parquet", ".json")  # in the order of the renames: the note last


@contextmanager
def locked(folder: Path, encoder: str) -> Iterator[Path]:
    """Hold the right to write `encoder` in `folder`; yields the work folder, which exists.

    A second writer gets an `AnymodalError` at once. The lock dies with its process. Moves that
    an earlier writer left half done are completed before the block runs.
    """
    work = work_folder(folder, encoder)
    refusal = (
        f"another process is writing the {encoder} embeddings in {folder}; wait until it ends, or "
        "give another folder"
    )
    with ExitStack() as held:
        with disk_errors(work):
            held.enter_context(exclusive(work / LOCK, refusal))
            held.callback(_tidy, work)
            _complete(folder, encoder)
            for temporary in work.glob(".*.tmp*"):  # what a killed writer had begun
                temporary.unlink()
        yield work


def _tidy(work: Path) -> None:
    """Remove the lock while it is held, unless unfinished work is left beside it."""
    with suppress(OSError):
        if [entry.name for entry in work.iterdir()] == [LOCK]:
            (work / LOCK).unlink()
            work.rmdir()


def write_embeddings(
    folder: Path, note: EmbeddingNote, index: pd.DataFrame, blocks: Iterable[np.ndarray]
) -> None:
    """Replace the three files of `note.encoder` together; the caller holds `locked`.

    Parameters
    ----------
    note: its `rows`, `failed` and `dtype` must be those of `index` and `blocks`.
    index: clip_id, row and error, in table order.
    blocks: the matrix in consecutive pieces (k, dim), so that it never need fit into memory.

    Everything else in the work folder is removed: its content is in the files now.
    """
    work = work_folder(folder, note.encoder)
    with disk_errors(work):
        with atomic_path(work / f"{STAGED}.npy") as temporary, temporary.open("wb") as file:
            _write_matrix(file, note, blocks)
        table = pa.Table.from_pandas(index, schema=INDEX_SCHEMA, preserve_index=False)
        with atomic_path(work / f"{STAGED}.parquet") as temporary:
            pq.write_table(table.replace_schema_metadata(None), temporary)
        write_json(work / f"{STAGED}.json", asdict(note))
        _complete(folder, note.encoder)
        clear_work(folder, note.encoder)


def clear_work(folder: Path, encoder: str) -> None:
    """Forget unfinished work; the caller holds `locked`."""
    for entry in work_folder(folder, encoder).iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal (disk full, no permission) into an `AnymodalError`."""
    try:
        yield
    except OSError as error:
        raise AnymodalError(
            f"cannot write {error.filename or path}: {error.strerror or error}; what was finished "
            "before is kept: free some space or give access, and run the same command again"
        ) from error


def _complete(folder: Path, encoder: str) -> None:
    """Move staged files into place if all three were staged."""
    work = work_folder(folder, encoder)
    if not (work / f"{STAGED}.json").exists():
        return
    for suffix in _SUFFIXES:
        staged = work / f"{STAGED}{suffix}"
        if staged.exists():
            staged.replace(folder / f"{encoder}{suffix}")


def _write_matrix(file: IO[bytes], note: EmbeddingNote, blocks: Iterable[np.ndarray]) -> None:
    # not a memory map: on a full disk writing to one kills the process instead of raising
    dtype = np.dtype(note.dtype)
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (note.rows, note.dim),
    }
    np.lib.format.write_array_header_1_0(file, header)
    written = 0
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
        written += len(block)
    if written != note.rows:
        raise AssertionError(f"{written} rows given, {note.rows} announced")
