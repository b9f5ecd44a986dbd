"""The feature pack: a dataset that travels as embeddings, without its media.

    pack.json                     `PackInfo`, with SHA-256 of every other file
    clips.parquet                 clip table, subset and split null; `audio` and `image` are the
                                  names that the media had
    embeddings/<encoder>.npy      float16 (rows, dim), with .parquet and .json as in the
                                  embedding cache (`anymodal.embeddings.cache`)
    DATASHEET.md                  sources, licences, counts and limits (`anymodal.data.datasheet`)

Packs are built by `anymodal.embeddings.packing`; `anymodal.embeddings.unpacking` copies their
embeddings into the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import file_digest
from anymodal.core.modality import Modality
from anymodal.core.record import Pairing, Record
from anymodal.data.clips import read_clips
from anymodal.data.info import SkippedFile

FORMAT = 1
INFO = "pack.json"
CLIPS = "clips.parquet"
EMBEDDINGS = "embeddings"
DATASHEET = "DATASHEET.md"
_REMEDY = "fetch it again with `dvc pull`, or build it with `anymodal pack`"


class PackedEncoder(Record):
    """One encoder's embeddings in a pack."""

    modality: Modality
    dim: int
    version: str
    rows: int
    failed: int
    """Clips that it could not embed."""
    float16_error: float
    """Largest relative error of an embedding by rounding to float16."""


class PackInfo(Record):
    """pack.json."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    name: str
    description: str
    windows: int
    """One-second windows per recording, at most."""
    skipped: tuple[SkippedFile, ...]
    pairing: Pairing
    made: dict[str, str]
    """The command, and the version of anymodal."""
    counts: dict[str, Any]
    encoders: dict[str, PackedEncoder]
    files: dict[str, str]
    """SHA-256 of every other file."""


@dataclass(frozen=True)
class Pack:
    """A feature pack whose files were found whole."""

    path: Path
    info: PackInfo
    clips: pd.DataFrame


def read_pack(path: str | Path) -> Pack:
    """Read the pack in folder `path`, checking every file against its SHA-256.

    Raises `AnymodalError`, which names the file, where one is missing, altered or damaged.
    """
    path = Path(path)
    try:
        info = PackInfo.read(path / INFO, "pack")
    except AnymodalError as error:
        raise AnymodalError(f"no feature pack in {path}: {error}, or `dvc pull`") from error
    needed = {CLIPS, DATASHEET}.union(*map(embedding_files, info.encoders))
    if not info.encoders or not needed <= info.files.keys():
        raise AnymodalError(f"{path / INFO} describes no whole pack; {_REMEDY}")
    for name, digest in info.files.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise AnymodalError(f"{path / INFO} names a file outside the pack: {name}")
        if not (path / name).is_file():
            raise AnymodalError(f"the pack in {path} lacks {name}; {_REMEDY}")
        if file_digest(path / name) != digest:
            raise AnymodalError(f"{path / name} is not the file that {INFO} describes; {_REMEDY}")
    return Pack(path, info, read_clips(path / CLIPS))


def embedding_files(encoder: str) -> tuple[str, ...]:
    """Return the files of one encoder, relative to the pack."""
    return tuple(f"{EMBEDDINGS}/{encoder}{suffix}" for suffix in (".npy", ".parquet", ".json"))
