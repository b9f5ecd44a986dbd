"""Fill the embedding cache from raw media: resumable, and the same however often interrupted.

A finished chunk is saved as a part with the ids of its clips; at the end the parts and the rows
that the cache had before are merged into its files, which then hold exactly the table's clips in
the table's order. What is done already is decided by clip id and encoder version alone. A rerun
after a kill forms the same chunks and batches as one undisturbed run: its files are the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.embeddings.cache import (
    BLOCK_ROWS,
    FAILED,
    EmbeddingCache,
    EmbeddingNote,
    Embeddings,
    ExtractionReport,
    failure_table,
)
from anymodal.embeddings.cache_writer import clear_work, disk_errors, locked, write_embeddings
from anymodal.embeddings.engines import Engine, Item, LocalEngine
from anymodal.embeddings.parts import Parts
from anymodal.encoders.base import Encoder

Progress = Callable[[int, int], None]
"""Called with (clips done, clips in all) at the start and after every chunk."""


def extract(
    clips: pd.DataFrame,
    root: str | Path,
    encoder: Encoder,
    folder: str | Path,
    batch_size: int = 32,
    workers: int = 2,
    chunk: int = 256,
    progress: Progress | None = None,
    *,
    retry_failed: bool = False,
    engine: Engine | None = None,
) -> ExtractionReport:
    """Embed the clips that have the encoder's modality, and leave them in the cache in `folder`.

    Parameters
    ----------
    clips: table with clip_id, start_s and the column of the encoder's modality (see
        `anymodal.data.clips`); rows without that modality are passed over.
    root: folder that relative paths of the table start from.
    batch_size: items a forward pass.
    workers: threads that decode while the network computes.
    chunk: items between two saves: what a kill loses at most.
    retry_failed: try again what failed in an earlier run; else it stays failed.
    engine: who computes; None: `LocalEngine(workers)`.

    A clip whose medium cannot be decoded, or that the encoder refuses, is recorded with the reason
    and counted, never fatal. The cache's previous content is reused where clip and encoder version
    are the same; clips that the table no longer has are dropped.

    Raises `AnymodalError` when there is nothing to embed, when everything failed, when another
    process writes the same encoder's files, and when the disk refuses a write. What was finished
    before an error is kept for the next run.
    """
    started = time.perf_counter()
    folder = Path(folder)
    for name, value in (("batch_size", batch_size), ("workers", workers), ("chunk", chunk)):
        if value < 1:
            raise AnymodalError(f"{name} must be at least 1, not {value}")
    root = Path(root).absolute()  # other processes may have started elsewhere
    items = _items(clips, root, encoder)
    engine = engine or LocalEngine(workers)

    with locked(folder, encoder.name) as work:
        cached = _cached(folder, encoder)
        with disk_errors(work):
            parts = Parts(work, encoder.version, encoder.dim)
        todo = _missing(items, cached, parts, retry_failed)
        done = len(items) - len(todo)
        if progress:
            progress(done, len(items))
        for result in engine(encoder, todo, batch_size, chunk) if todo else ():
            first = result.number * chunk
            ids = [item.clip_id for item in todo[first : first + chunk]]
            # where the media lie on this machine is no part of the reason
            errors = [error and error.replace(f"{root}{os.sep}", "") for error in result.errors]
            with disk_errors(work):
                parts.append(ids, result.matrix, errors)
            done += len(ids)
            if progress:
                progress(done, len(items))
        index = _merge(folder, encoder, [item.clip_id for item in items], cached, parts)
    failed = index["row"].to_numpy() == FAILED
    attempted = index["clip_id"].isin({item.clip_id for item in todo}).to_numpy()
    return ExtractionReport(
        encoder=encoder.name,
        embedded=int((attempted & ~failed).sum()),
        reused=int((~attempted & ~failed).sum()),
        failed=int(failed.sum()),
        seconds=time.perf_counter() - started,
        failures=failure_table(index.loc[failed, "clip_id"], index.loc[failed, "error"]),
    )


def _items(clips: pd.DataFrame, root: Path, encoder: Encoder) -> list[Item]:
    """The clips of the encoder's modality, in table order."""
    lacking = [c for c in ("clip_id", encoder.modality, "start_s") if c not in clips.columns]
    if lacking:
        raise AnymodalError(f"clip table lacks the column(s) {', '.join(lacking)}")
    rows = clips[clips[encoder.modality].notna()]
    if rows.empty:
        raise AnymodalError(
            f"none of the {len(clips)} clips has {encoder.modality}: there is nothing for "
            f"{encoder.name} to embed; leave this encoder out, or add {encoder.modality} clips"
        )
    repeated = rows["clip_id"][rows["clip_id"].duplicated()]
    if len(repeated):
        raise AnymodalError(f"clip table repeats the clip_id {repeated.iloc[0]!r}")
    if not root.is_dir():
        raise AnymodalError(f"no media folder at {root}")
    columns = rows["clip_id"], rows[encoder.modality], rows["start_s"]
    return [
        Item(clip_id, str(root / path), float(start))
        for clip_id, path, start in zip(*columns, strict=True)
    ]


def _cached(folder: Path, encoder: Encoder) -> Embeddings | None:
    """What the cache holds, if this very encoder made it."""
    cache = EmbeddingCache(folder)
    note = cache.note(encoder.name)
    made_by = (encoder.version, encoder.modality, encoder.dim, "float32")
    if note is None or (note.version, note.modality, note.dim, note.dtype) != made_by:
        return None
    # a half-done move was completed when the lock was taken, so this refuses damage alone
    return cache.open(encoder.name)


def _missing(
    items: list[Item], cached: Embeddings | None, parts: Parts, retry_failed: bool
) -> list[Item]:
    rows = {} if cached is None else _rows(cached)
    rows |= {clip_id: row for clip_id, (_, row) in parts.known.items()}
    if retry_failed:
        rows = {clip_id: row for clip_id, row in rows.items() if row != FAILED}
    return [item for item in items if item.clip_id not in rows]


def _merge(
    folder: Path, encoder: Encoder, clip_ids: list[str], cached: Embeddings | None, parts: Parts
) -> pd.DataFrame:
    """Bring the cache's files to hold exactly `clip_ids`, all of which are known; the new index."""
    if cached is not None and not parts.known and cached.index["clip_id"].tolist() == clip_ids:
        return cached.index
    in_cache = -1
    rows = {} if cached is None else _rows(cached)
    where = {clip_id: (in_cache, row) for clip_id, row in rows.items()} | parts.known
    failures = [] if cached is None else cached.failures.itertuples(index=False)
    errors = dict(failures) | parts.errors
    located = np.array([where[clip_id] for clip_id in clip_ids], dtype=np.int64)
    good = located[:, 1] != FAILED
    index = pd.DataFrame(
        {
            "clip_id": clip_ids,
            "row": np.where(good, np.cumsum(good) - 1, FAILED),
            "error": [
                None if ok else errors[i] for i, ok in zip(clip_ids, good.tolist(), strict=True)
            ],
        }
    )
    if not good.any():
        with disk_errors(folder):
            clear_work(folder, encoder.name)
        raise AnymodalError(
            f"{encoder.name} could embed none of the {len(clip_ids)} {encoder.modality} clips; "
            f"the first, {clip_ids[0]}: {index['error'].iloc[0]}"
        )

    def matrices(origin: int) -> np.ndarray:
        return cached.matrix if cached and origin == in_cache else parts.matrix(origin)

    def blocks() -> Iterator[np.ndarray]:
        rows = located[good]
        for start in range(0, len(rows), BLOCK_ROWS):
            piece = rows[start : start + BLOCK_ROWS]
            block = np.empty((len(piece), encoder.dim), dtype=np.float32)
            for origin in np.unique(piece[:, 0]):
                of_origin = piece[:, 0] == origin
                matrix = matrices(int(origin))
                block[of_origin] = matrix[piece[of_origin, 1]]
            yield block

    note = EmbeddingNote(
        encoder=encoder.name,
        modality=encoder.modality,
        version=encoder.version,
        dim=encoder.dim,
        rows=int(good.sum()),
        failed=int((~good).sum()),
    )
    write_embeddings(folder, note, index, blocks())
    return index


def _rows(embeddings: Embeddings) -> dict[str, int]:
    """clip id → row."""
    index = embeddings.index
    return dict(zip(index["clip_id"].tolist(), index["row"].tolist(), strict=True))
