"""Build a feature pack (`anymodal.dataset.pack`) from a folder of media."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import anymodal
from anymodal import encoders as registry
from anymodal.cache import FAILED, EmbeddingCache, Embeddings
from anymodal.cache_writer import disk_errors, locked, write_embeddings
from anymodal.dataset.clips import write_clips
from anymodal.dataset.datasheet import datasheet
from anymodal.dataset.folder import Skipped, scan_folder
from anymodal.dataset.pack import (
    CLIPS,
    DATASHEET,
    EMBEDDINGS,
    FORMAT,
    META,
    embedding_files,
    read_pack,
    sha256,
)
from anymodal.embedding import extract
from anymodal.encoders.base import MODALITIES, Encoder, Modality
from anymodal.errors import AnymodalError
from anymodal.storage import write_json, write_text

Progress = Callable[[str, int, int], None]
"""Called with (step, items done, items in all)."""

_BLOCK_ROWS = 1024


def build_pack(
    media_root: str | Path,
    out: str | Path,
    encoders: Sequence[str | Encoder],
    windows: int,
    name: str,
    progress: Progress | None = None,
    *,
    batch_size: int = 32,
    workers: int = 2,
    chunk: int = 256,
    description: str = "",
) -> dict[str, Any]:
    """Scan `media_root`, embed it with every encoder, and leave the pack in `out`; its pack.json.

    Parameters
    ----------
    media_root: folder as `anymodal.dataset.folder.scan_folder` reads it.
    out: folder of the pack. An older pack there is replaced when the new one is whole; a folder
        that holds anything else is refused.
    encoders: names, or encoders that are built already.
    windows: one-second windows a recording at most.
    description: a sentence on what the media are, for pack.json and the datasheet.

    Work in progress is kept beside `out` in `.anymodal`, so that a killed build resumes;
    the same media, encoders and arguments give the same bytes. Clips that no encoder could embed
    are left out and listed in pack.json. Raises `AnymodalError` where an embedding does not fit
    into float16.
    """
    media_root, out = Path(media_root), Path(out)
    if out.exists() and not (out / META).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise AnymodalError(f"{out} is in the way and is no feature pack; give another folder")
    told = progress or (lambda step, done, total: None)
    modalities = _modalities(encoders)
    clips, skipped = scan_folder(
        media_root, windows, workers=workers, progress=partial(told, "read media")
    )
    # where the media lie on this machine is no part of the reason
    here = f"{media_root}{os.sep}"
    skipped = [replace(each, reason=each.reason.replace(here, "")) for each in skipped]
    for encoder_name, modality in modalities.items():
        if clips[modality].isna().all():
            raise AnymodalError(f"{media_root} has no {modality} for {encoder_name} to embed")
    work = out.parent / ".anymodal" / f"pack-{out.name}"
    old = work / "old"
    if old.exists() and not out.exists():
        old.replace(out)  # a build was killed between the last two moves
    versions = []
    for chosen in encoders:
        encoder = registry.get(chosen) if isinstance(chosen, str) else chosen
        versions.append(encoder.version)
        advance = partial(told, f"embed {encoder.name}")
        extract(clips, media_root, encoder, work / EMBEDDINGS, batch_size, workers, chunk, advance)
    cache = EmbeddingCache(work / EMBEDDINGS)
    embeddings = [cache.open(*made) for made in zip(modalities, versions, strict=True)]
    with disk_errors(work):
        for leftover in (old, work / "pack"):
            shutil.rmtree(leftover, ignore_errors=True)
        clips, skipped = _without_hopeless(clips, skipped, embeddings)
        facts = {
            "name": name,
            "description": description
            or f"Made from the folder of media `{media_root.resolve().name}`.",
            "windows": windows,
            "skipped": [asdict(each) for each in skipped],
        }
        meta = _write(work / "pack", facts, clips, embeddings)
        read_pack(work / "pack")
        if out.exists():
            out.replace(old)
        (work / "pack").replace(out)
        shutil.rmtree(work)
        with suppress(OSError):  # other work is in it
            work.parent.rmdir()
    return meta


def _modalities(encoders: Sequence[str | Encoder]) -> dict[str, Modality]:
    """Name → modality, in the order given."""
    if not encoders:
        raise AnymodalError("a pack needs at least one encoder")
    found: dict[str, Modality] = {}
    for encoder in encoders:
        known = registry.info(encoder) if isinstance(encoder, str) else encoder
        if known.name in found:
            raise AnymodalError(f"encoder {known.name} is named twice")
        found[known.name] = known.modality
    return found


def _without_hopeless(
    clips: pd.DataFrame, skipped: list[Skipped], embeddings: Sequence[Embeddings]
) -> tuple[pd.DataFrame, list[Skipped]]:
    """The clips that at least one encoder could embed; the others join the skipped files."""
    ids = clips["clip_id"].tolist()
    usable = np.logical_or.reduce([each.has(ids) for each in embeddings])
    reasons = {
        clip_id: f"{each.note.encoder}: {error}"
        for each in embeddings
        for clip_id, error in each.failures.itertuples(index=False)
    }
    lost = [
        Skipped(
            row.audio if isinstance(row.audio, str) else row.image,
            f"at {row.start_s:g} s: {reasons.get(row.clip_id, 'no encoder of its modality')}",
        )
        for row in clips[~usable].itertuples()
    ]
    return clips[usable].reset_index(drop=True), [*skipped, *lost]


def _write(
    folder: Path, facts: dict[str, Any], clips: pd.DataFrame, embeddings: Sequence[Embeddings]
) -> dict[str, Any]:
    """Write all files of a pack into `folder`; its pack.json."""
    meta: dict[str, Any] = {
        "format": FORMAT,
        **facts,
        "pairing": clips["pairing"].iloc[0],
        "made": {
            "command": shlex.join(["anymodal", "pack", "MEDIA", "--name", facts["name"]]),
            "anymodal": anymodal.__version__,
        },
        "counts": _count(clips),
        "encoders": {each.note.encoder: _write_half(folder, each, clips) for each in embeddings},
    }
    write_clips(folder / CLIPS, clips)
    write_text(folder / DATASHEET, datasheet(meta, clips))
    names = [CLIPS, DATASHEET, *(f for each in meta["encoders"] for f in embedding_files(each))]
    meta["files"] = {name: sha256(folder / name) for name in sorted(names)}
    write_json(folder / META, meta)
    return meta


def _write_half(folder: Path, embeddings: Embeddings, clips: pd.DataFrame) -> dict[str, Any]:
    """Write one encoder's embeddings as float16; what pack.json says of them."""
    index = embeddings.index[embeddings.index["clip_id"].isin(clips["clip_id"])]
    failed = int((index["row"] == FAILED).sum())
    note = replace(embeddings.note, failed=failed, dtype="float16")
    worst = 0.0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal worst
        for start in range(0, note.rows, _BLOCK_ROWS):
            half, error = to_float16(embeddings.matrix[start : start + _BLOCK_ROWS], note.encoder)
            worst = max(worst, error)
            yield half

    with locked(folder / EMBEDDINGS, note.encoder):
        write_embeddings(folder / EMBEDDINGS, note, index, blocks())
    return {
        "modality": note.modality,
        "dim": note.dim,
        "version": note.version,
        "rows": note.rows,
        "failed": note.failed,
        "float16_error": worst,
    }


def to_float16(matrix: np.ndarray, encoder: str) -> tuple[np.ndarray, float]:
    """Round (n, dim) float32 to float16.

    Returns the rounded matrix and the largest relative error of a row: ‖rounded − row‖ / ‖row‖
    (0 for rows of zeros). A value beyond float16's 65,504 is an `AnymodalError`.
    """
    with np.errstate(over="ignore"):
        half = matrix.astype(np.float16)
    if not np.isfinite(half).all():
        largest = np.abs(matrix).max()
        raise AnymodalError(
            f"{encoder} gives values up to {largest:.3g}, which a feature pack cannot hold "
            "(float16 ends at 65504); leave this encoder out"
        )
    exact = matrix.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    off = np.linalg.norm(half.astype(np.float64) - exact, axis=1)
    relative = np.divide(off, norms, out=np.zeros_like(off), where=norms > 0)
    return half, float(relative.max(initial=0.0))


def _count(clips: pd.DataFrame) -> dict[str, Any]:
    def by(column: str) -> dict[str, dict[str, int]]:
        groups = clips.groupby(clips[column].fillna("(none)"), sort=True)
        return {
            str(name): {modality: int(part[modality].notna().sum()) for modality in MODALITIES}
            for name, part in groups
        }

    per_modality: dict[str, Any] = {
        modality: {
            "clips": int(clips[modality].notna().sum()),
            "files": int(clips[modality].nunique()),
        }
        for modality in MODALITIES
    }
    return {
        "clips": len(clips),
        "groups": int(clips["group"].nunique()),
        **per_modality,
        "classes": by("instrument"),
        "sources": by("source"),
    }
