"""Build a feature pack (`anymodal.data.pack`) from a folder of media."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import anymodal
from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import file_digest
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import write_text
from anymodal.data.clips import write_clips
from anymodal.data.datasheet import datasheet
from anymodal.data.folder import scan_folder
from anymodal.data.info import SkippedFile
from anymodal.data.pack import (
    CLIPS,
    DATASHEET,
    EMBEDDINGS,
    FORMAT,
    INFO,
    PackedEncoder,
    PackInfo,
    embedding_files,
    read_pack,
)
from anymodal.embeddings import extract
from anymodal.embeddings.cache import BLOCK_ROWS, FAILED, EmbeddingCache, Embeddings
from anymodal.embeddings.cache_writer import disk_errors, locked, write_embeddings
from anymodal.embeddings.unpacking import packed
from anymodal.encoders import registry
from anymodal.encoders.base import Encoder

Progress = Callable[[str, int, int], None]
"""Called with (step, items done, items in all)."""


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
) -> PackInfo:
    """Embed the folder `media_root` with every encoder and leave the pack in `out`.

    Parameters
    ----------
    media_root: folder as `anymodal.data.folder.scan_folder` reads it.
    out: folder of the pack. An older pack there is replaced when the new one is whole; a folder
        that holds anything else is refused.
    encoders: names, or encoders that are built already.
    windows: one-second windows per recording, at most.
    description: a sentence on what the media are, for pack.json and the datasheet.

    Work in progress is kept beside `out` in `.anymodal`, so that a killed build resumes; the same
    media, encoders and arguments give the same bytes. Clips that no encoder could embed are listed
    in pack.json as skipped. Raises `AnymodalError` where an embedding does not fit into float16.
    """
    media_root, out = Path(media_root), Path(out)
    if out.exists() and not (out / INFO).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise AnymodalError(f"{out} is in the way and is no feature pack; give another folder")
    report = progress or (lambda step, done, total: None)
    modalities = _modalities(encoders)
    clips, skipped = scan_folder(
        media_root, windows, workers=workers, progress=partial(report, "read media")
    )
    # no paths of this machine in the reasons
    prefix = f"{media_root}{os.sep}"
    skipped = [SkippedFile(path=s.path, reason=s.reason.replace(prefix, "")) for s in skipped]
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
        advance = partial(report, f"embed {encoder.name}")
        extract(clips, media_root, encoder, work / EMBEDDINGS, batch_size, workers, chunk, advance)
    cache = EmbeddingCache(work / EMBEDDINGS)
    embeddings = [cache.open(*made) for made in zip(modalities, versions, strict=True)]
    with disk_errors(work):
        for leftover in (old, work / "pack"):
            shutil.rmtree(leftover, ignore_errors=True)
        clips, unusable = _usable(clips, embeddings)
        info = PackInfo(
            format=FORMAT,
            name=name,
            description=description
            or f"Made from the folder of media `{media_root.resolve().name}`.",
            windows=windows,
            skipped=(*skipped, *unusable),
            pairing=clips["pairing"].iloc[0],
            made={
                "command": shlex.join(["anymodal", "pack", "MEDIA", "--name", name]),
                "anymodal": anymodal.__version__,
            },
            counts=_counts(clips),
            encoders={each.note.encoder: _write_half(work, each, clips) for each in embeddings},
            files={},
        )
        info = _write(work / "pack", info, clips)
        if out.exists():
            out.replace(old)
        (work / "pack").replace(out)
        shutil.rmtree(work)
        with suppress(OSError):  # other work is in it
            work.parent.rmdir()
    return info


def _modalities(encoders: Sequence[str | Encoder]) -> dict[str, Modality]:
    """Name → modality, in the order given."""
    if not encoders:
        raise AnymodalError("a pack needs at least one encoder")
    modalities: dict[str, Modality] = {}
    for encoder in encoders:
        known = registry.info(encoder) if isinstance(encoder, str) else encoder
        if known.name in modalities:
            raise AnymodalError(f"encoder {known.name} is named twice")
        modalities[known.name] = known.modality
    return modalities


def _usable(
    clips: pd.DataFrame, embeddings: Sequence[Embeddings]
) -> tuple[pd.DataFrame, list[SkippedFile]]:
    """The clips that at least one encoder could embed, and the others."""
    ids = clips["clip_id"].tolist()
    usable = np.logical_or.reduce([each.has(ids) for each in embeddings])
    reasons = {
        clip_id: f"{each.note.encoder}: {error}"
        for each in embeddings
        for clip_id, error in each.failures.itertuples(index=False)
    }
    unusable = [
        SkippedFile(
            path=str(row.audio if isinstance(row.audio, str) else row.image),
            reason=f"at {row.start_s:g} s: {reasons.get(row.clip_id, 'no encoder for it')}",
        )
        for row in clips[~usable].itertuples()
    ]
    return clips[usable].reset_index(drop=True), unusable


def _write(folder: Path, info: PackInfo, clips: pd.DataFrame) -> PackInfo:
    """Complete the pack in `folder`, which has the embeddings, and read it back."""
    write_clips(folder / CLIPS, clips)
    write_text(folder / DATASHEET, datasheet(info, clips))
    names = [CLIPS, DATASHEET, *(f for encoder in info.encoders for f in embedding_files(encoder))]
    info = info.model_copy(update={"files": {n: file_digest(folder / n) for n in sorted(names)}})
    info.write(folder / INFO)
    pack = read_pack(folder)
    for encoder in info.encoders:
        packed(pack, encoder)
    return pack.info


def _write_half(work: Path, embeddings: Embeddings, clips: pd.DataFrame) -> PackedEncoder:
    """Write one encoder's embeddings as float16 into the pack."""
    index = embeddings.index[embeddings.index["clip_id"].isin(clips["clip_id"])]
    failed = int((index["row"] == FAILED).sum())
    note = replace(embeddings.note, failed=failed, dtype="float16")
    errors = [0.0]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, note.rows, BLOCK_ROWS):
            half, error = to_float16(embeddings.matrix[start : start + BLOCK_ROWS], note.encoder)
            errors.append(error)
            yield half

    folder = work / "pack" / EMBEDDINGS
    with locked(folder, note.encoder):
        write_embeddings(folder, note, index, blocks())
    return PackedEncoder(
        modality="audio" if note.modality == "audio" else "image",
        dim=note.dim,
        version=note.version,
        rows=note.rows,
        failed=failed,
        float16_error=max(errors),
    )


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


def _counts(clips: pd.DataFrame) -> dict[str, Any]:
    def by(column: str) -> dict[str, dict[str, int]]:
        groups = clips.groupby(clips[column].fillna("(none)"), sort=True)
        return {str(name): {m: int(part[m].count()) for m in MODALITIES} for name, part in groups}

    return {
        "clips": len(clips),
        "groups": clips["group"].nunique(),
        **{m: {"clips": int(clips[m].count()), "files": clips[m].nunique()} for m in MODALITIES},
        "classes": by("instrument"),
        "sources": by("source"),
    }
