"""The feature pack: a dataset that travels as embeddings, without its media.

Layout
------
    pack.json                     what it is, how it was made, SHA-256 of every other file
    clips.parquet                 clip table, subset and split null; `audio` and `image` are the
                                  names that the media had, for provenance
    embeddings/<encoder>.npy      float16 (rows, dim), with .parquet and .json as in the
                                  embedding cache (`anymodal.cache`)
    DATASHEET.md                  sources, licences, counts, and what it must not be used for

Here a pack is read; `anymodal.packing` builds one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from anymodal.cache import FAILED, EmbeddingCache, Embeddings, ExtractionReport, failure_table
from anymodal.cache_writer import clear_work, disk_errors, locked, write_embeddings
from anymodal.dataset.clips import read_clips
from anymodal.errors import AnymodalError
from anymodal.storage import read_json

FORMAT = 1
"""Version of the layout; a reader refuses others."""
META = "pack.json"
CLIPS = "clips.parquet"
EMBEDDINGS = "embeddings"
DATASHEET = "DATASHEET.md"

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Pack:
    """A feature pack whose files were found whole."""

    path: Path
    meta: dict[str, Any]
    """pack.json."""
    clips: pd.DataFrame
    """Clip table (see `anymodal.dataset.clips`)."""

    @property
    def name(self) -> str:
        """Name of the pack."""
        return str(self.meta["name"])

    @property
    def encoders(self) -> tuple[str, ...]:
        """Encoders whose embeddings it holds, in the order it was built with."""
        return tuple(self.meta["encoders"])

    def embeddings(self, encoder: str) -> Embeddings:
        """Embeddings of one encoder: float16 on disk, float32 from `rows_of`."""
        if encoder not in self.encoders:
            raise AnymodalError(
                f"pack {self.name} holds no {encoder} embeddings, only {', '.join(self.encoders)}; "
                "for others get the raw media, set dataset.source to folder in params.yaml and run "
                "`anymodal embed`"
            )
        return EmbeddingCache(self.path / EMBEDDINGS).open(
            encoder, version=self.meta["encoders"][encoder]["version"]
        )

    def materialise(
        self, encoder: str, clip_ids: Iterable[str], folder: str | Path
    ) -> ExtractionReport:
        """Fill the embedding cache in `folder` with these clips, as `embedding.extract` would.

        The files are those that extraction writes (float32, in the order of `clip_ids`), so that
        nothing after it can tell the difference. Clips of the other modality are passed over;
        clips that failed when the pack was made stay failed. Raises `AnymodalError` for a clip
        that the pack does not have, and where nothing is left to write.
        """
        started = time.perf_counter()
        folder = Path(folder)
        embeddings = self.embeddings(encoder)
        clip_ids = list(clip_ids)
        foreign = pd.Index(clip_ids).difference(pd.Index(self.clips["clip_id"]), sort=False)
        if len(foreign):
            raise AnymodalError(
                f"clip {foreign[0]!r} ({len(foreign)} such clips in all) is not in pack "
                f"{self.name}; run `anymodal dataset` again"
            )
        held = embeddings.index.set_index("clip_id")
        index = held.loc[[clip_id for clip_id in clip_ids if clip_id in held.index]].reset_index()
        rows = index["row"].to_numpy()
        good = rows != FAILED
        if not good.any():
            raise AnymodalError(
                f"none of the {len(clip_ids)} clips has a {encoder} embedding in pack {self.name}; "
                f"it has {embeddings.note.rows} of other clips"
            )
        if index["clip_id"].duplicated().any():
            raise AnymodalError("clip ids to take from a pack must not repeat")
        index["row"] = np.where(good, np.cumsum(good) - 1, FAILED)

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, int(good.sum()), _BLOCK_ROWS):
                yield embeddings.matrix[rows[good][start : start + _BLOCK_ROWS]]

        failed = index.loc[~good]
        note = replace(embeddings.note, rows=int(good.sum()), failed=len(failed), dtype="float32")
        with locked(folder, encoder):
            with disk_errors(folder):
                clear_work(folder, encoder)
            write_embeddings(folder, note, index, blocks())
        return ExtractionReport(
            encoder=encoder,
            embedded=0,
            reused=note.rows,
            failed=note.failed,
            seconds=time.perf_counter() - started,
            failures=failure_table(failed["clip_id"], failed["error"]),
        )


def read_pack(path: str | Path) -> Pack:
    """Read the pack in folder `path`, checking every file against its SHA-256.

    A missing, altered or half-fetched pack is an `AnymodalError` that names the file.
    """
    path = Path(path)
    meta = _meta(path)
    for name, digest in meta["files"].items():
        file = path / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise AnymodalError(f"{path / META} names a file outside the pack: {name}")
        if not file.is_file():
            raise AnymodalError(f"the pack in {path} lacks {name}; {_REMEDY}")
        if sha256(file) != digest:
            raise AnymodalError(
                f"{file} is not the file that {META} describes: altered or damaged; {_REMEDY}"
            )
    pack = Pack(path, meta, read_clips(path / CLIPS))
    known = pd.Index(pack.clips["clip_id"])
    for encoder in pack.encoders:
        if not pack.embeddings(encoder).index["clip_id"].isin(known).all():
            raise AnymodalError(f"{path}: the {encoder} embeddings do not belong to {CLIPS}")
    return pack


def embedding_files(encoder: str) -> tuple[str, ...]:
    """The files of one encoder, relative to the pack."""
    return tuple(f"{EMBEDDINGS}/{encoder}{suffix}" for suffix in (".npy", ".parquet", ".json"))


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_REMEDY = "fetch it again with `dvc pull`, or build it with `anymodal pack`"


def _meta(path: Path) -> dict[str, Any]:
    file = path / META
    if not file.is_file():
        raise AnymodalError(f"no feature pack in {path}: it lacks {META}; {_REMEDY}")
    try:
        meta = read_json(file)
        version, encoders, files = meta["format"], list(meta["encoders"]), set(meta["files"])
        described = isinstance(meta["name"], str) and all(
            isinstance(meta["encoders"][encoder]["version"], str) for encoder in encoders
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AnymodalError(f"{file} is damaged ({type(error).__name__}); {_REMEDY}") from error
    if version != FORMAT:
        raise AnymodalError(
            f"{file} has format {version!r}, this version of anymodal reads {FORMAT}; "
            "use the version that the pack was made for, or build the pack again"
        )
    needed = {CLIPS, DATASHEET}.union(*(embedding_files(encoder) for encoder in encoders))
    if not described or not encoders or not needed <= files:
        raise AnymodalError(f"{file} is damaged (it describes no whole pack); {_REMEDY}")
    return meta
