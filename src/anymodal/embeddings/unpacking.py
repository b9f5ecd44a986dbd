"""The embeddings of a feature pack (`anymodal.data.pack`), and their copy in the cache."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.data.pack import EMBEDDINGS, Pack
from anymodal.embeddings.cache import (
    BLOCK_ROWS,
    FAILED,
    EmbeddingCache,
    Embeddings,
    ExtractionReport,
    failure_table,
)
from anymodal.embeddings.cache_writer import locked, write_embeddings


def packed(pack: Pack, encoder: str) -> Embeddings:
    """Open the embeddings of one encoder in a pack: float16 on disk, float32 from `rows_of`.

    Raises `AnymodalError` where the pack has none, or they do not belong to its clips.
    """
    info = pack.info.encoders.get(encoder)
    if info is None:
        raise AnymodalError(
            f"pack {pack.info.name} holds no {encoder} embeddings, only "
            f"{', '.join(pack.info.encoders)}; for others get the raw media, set dataset.source "
            "to folder in params.yaml and run `anymodal embed`"
        )
    embeddings = EmbeddingCache(pack.path / EMBEDDINGS).open(encoder, version=info.version)
    if not embeddings.index["clip_id"].isin(pack.clips["clip_id"]).all():
        raise AnymodalError(f"{pack.path}: the {encoder} embeddings do not belong to its clips")
    return embeddings


def materialise(
    pack: Pack, encoder: str, clip_ids: Iterable[str], folder: str | Path
) -> ExtractionReport:
    """Fill the embedding cache in `folder` with these clips, as `extract` would.

    The files are those that extraction writes: float32, in the order of `clip_ids`. Clips of the
    other modality are passed over; clips that failed when the pack was made stay failed. Raises
    `AnymodalError` for a clip that the pack does not have, and where nothing is left to write.
    """
    started = time.perf_counter()
    embeddings = packed(pack, encoder)
    clip_ids = list(clip_ids)
    foreign = pd.Index(clip_ids).difference(pd.Index(pack.clips["clip_id"]), sort=False)
    if len(foreign):
        raise AnymodalError(
            f"clip {foreign[0]!r} ({len(foreign)} such clips in all) is not in pack "
            f"{pack.info.name}; run `anymodal dataset` again"
        )
    held = embeddings.index.set_index("clip_id")
    index = held.loc[[clip_id for clip_id in clip_ids if clip_id in held.index]].reset_index()
    rows = index["row"].to_numpy()
    good = rows != FAILED
    if not good.any():
        raise AnymodalError(
            f"none of the {len(clip_ids)} clips has a {encoder} embedding in pack "
            f"{pack.info.name}; it has {embeddings.note.rows} of other clips"
        )
    index["row"] = np.where(good, np.cumsum(good) - 1, FAILED)
    failed = index.loc[~good]
    note = replace(embeddings.note, rows=int(good.sum()), failed=len(failed), dtype="float32")
    starts = range(0, note.rows, BLOCK_ROWS)
    blocks = (embeddings.matrix[rows[good][start : start + BLOCK_ROWS]] for start in starts)
    with locked(Path(folder), encoder):
        write_embeddings(Path(folder), note, index, blocks)
    return ExtractionReport(
        encoder=encoder,
        embedded=0,
        reused=note.rows,
        failed=note.failed,
        seconds=time.perf_counter() - started,
        failures=failure_table(failed["clip_id"], failed["error"]),
    )
