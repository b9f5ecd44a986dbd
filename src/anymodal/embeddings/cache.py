"""The embedding cache, for reading: every encoder's embeddings of every clip, in few big files.

===================  =====================================================================
<encoder>.npy        float32 (rows, dim): a row per clip that could be embedded
<encoder>.parquet    index: clip_id, row (int64; -1 where it failed), error (or null);
                     its clips stand in the order of the table they were embedded from
<encoder>.json       note: encoder, modality, version, dim, rows, failed, dtype
<encoder>.parts/     unfinished work (`anymodal.embeddings.parts`)
===================  =====================================================================

The three files change together: new ones are staged in the work folder, the note last, and then
renamed into place. A writer that dies between two renames leaves the staged note behind; the next
writer completes the move, and readers refuse the encoder until then. The files hold no times and
no paths: equal embeddings give equal bytes. A pack's own embeddings have dtype float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import read_json

INDEX_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
DTYPES = ("float32", "float16")
BLOCK_ROWS = 1024
"""Rows copied at a time; bounds memory, changes no result."""
FAILED = -1
"""Row number of a clip that has no embedding."""

STAGED = "final"
"""Stem of the staged files in the work folder."""


@dataclass(frozen=True)
class EmbeddingNote:
    """What <encoder>.json says of the two files beside it."""

    encoder: str
    modality: str
    version: str
    """The encoder's version: hash of its weights and preprocessing."""
    dim: int
    rows: int
    """Clips with an embedding."""
    failed: int
    """Clips without one."""
    dtype: str = "float32"


@dataclass(frozen=True)
class ExtractionReport:
    """What filling the cache for one encoder came to: embedded + reused + failed clips in all."""

    encoder: str
    embedded: int
    """Clips embedded by this call."""
    reused: int
    """Clips whose embedding was there: in the cache, in an interrupted run's parts, in a pack."""
    failed: int
    """Clips without an embedding, whether they failed now or earlier."""
    seconds: float
    failures: pd.DataFrame
    """clip_id and error of the failed ones."""
    precision_error: float | None = None
    """Largest relative error of an embedding against float32, where the network computed in a
    shorter type."""


class Embeddings:
    """One encoder's embeddings: a read-only matrix and the clips that its rows belong to."""

    def __init__(self, note: EmbeddingNote, matrix: np.ndarray, index: pd.DataFrame) -> None:
        self.note = note
        self.matrix = matrix
        """(rows, dim) of `note.dtype`."""
        self.index = index
        """clip_id, row and error, in table order; `FAILED` rows included."""
        self._rows = index["row"].to_numpy(np.int64)
        self._ids = pd.Index(index["clip_id"].to_numpy(object))

    @property
    def version(self) -> str:
        """The encoder's version that made them."""
        return self.note.version

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.note.dim

    @property
    def clip_ids(self) -> np.ndarray:
        """(rows,) clip ids in the order of the matrix."""
        return self._ids.to_numpy()[self._rows != FAILED]

    @property
    def failures(self) -> pd.DataFrame:
        """clip_id and error of the clips that could not be embedded."""
        failed = self.index.loc[self._rows == FAILED]
        return failure_table(failed["clip_id"], failed["error"])

    def has(self, clip_ids: Sequence[str]) -> np.ndarray:
        """(n,) bool: which of the clips have an embedding."""
        return self._lookup(clip_ids) != FAILED

    def rows_of(self, clip_ids: Sequence[str]) -> np.ndarray:
        """(n, dim) float32 in the order asked for; a clip without embedding is an error."""
        rows = self._lookup(clip_ids)
        missing = np.flatnonzero(rows == FAILED)
        if len(missing):
            clip_id = list(clip_ids)[missing[0]]
            position = self._ids.get_indexer([clip_id])[0]
            why = "is not in the cache"
            if position >= 0:
                why = f"failed ({self.index['error'].iloc[position]})"
            more = f" ({len(missing)} such clips in all)" if len(missing) > 1 else ""
            raise AnymodalError(
                f"no {self.note.encoder} embedding of clip {clip_id!r}: it {why}{more}; "
                "run `anymodal embed`, or leave the clip out"
            )
        return np.asarray(self.matrix[rows], dtype=np.float32)

    def _lookup(self, clip_ids: Sequence[str]) -> np.ndarray:
        positions = self._ids.get_indexer(pd.Index(list(clip_ids), dtype=object))
        return np.where(positions >= 0, np.append(self._rows, FAILED)[positions], FAILED)


class EmbeddingCache:
    """The cache in `folder`, for reading."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders that have embeddings here, sorted."""
        notes = sorted(self.folder.glob("*.json"))
        return tuple(note.stem for note in notes if note.with_suffix(".npy").is_file())

    def open(self, encoder: str, version: str | None = None) -> Embeddings:
        """Embeddings of `encoder`, memory-mapped; of that `version` where one is given.

        Raises `AnymodalError` when they are missing, damaged, half written or of another version.
        """
        note = self.note(encoder)
        if note is None:
            held = ", ".join(self.encoders) or "nothing"
            raise AnymodalError(
                f"no {encoder} embeddings in {self.folder} (it holds {held}); "
                "run `anymodal embed` first"
            )
        if (work_folder(self.folder, encoder) / f"{STAGED}.json").exists():
            raise AnymodalError(
                f"the {encoder} embeddings in {self.folder} were left half written; "
                "run `anymodal embed` again to complete them"
            )
        if version is not None and note.version != version:
            raise AnymodalError(
                f"the {encoder} embeddings in {self.folder} were made by version {note.version} "
                f"of the encoder, not by {version}; run `anymodal embed` to make them again"
            )
        paths = [self.folder / f"{encoder}{suffix}" for suffix in (".npy", ".parquet")]
        try:
            matrix = np.load(paths[0], mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(paths[0], error) from error
        try:
            index = pq.read_table(paths[1], schema=INDEX_SCHEMA).to_pandas()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _damaged(paths[1], error) from error
        if matrix.shape != (note.rows, note.dim) or str(matrix.dtype) != note.dtype:
            raise _damaged(paths[0], f"{matrix.dtype} {matrix.shape} is not what its note says")
        rows = index["row"].to_numpy()
        in_order = np.array_equal(rows[rows != FAILED], np.arange(note.rows))
        if not in_order or len(index) != note.rows + note.failed:
            raise _damaged(paths[1], "it does not fit the matrix beside it")
        if index["clip_id"].duplicated().any():
            raise _damaged(paths[1], "it repeats a clip_id")
        return Embeddings(note, matrix, index)

    def note(self, encoder: str) -> EmbeddingNote | None:
        """The note of `encoder`, or None where there is none."""
        path = self.folder / f"{_checked(encoder)}.json"
        try:
            note = EmbeddingNote(**read_json(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        if note.encoder != encoder or note.dtype not in DTYPES:
            raise _damaged(path, "it is the note of another encoder or of an unknown dtype")
        return note


def failure_table(clip_ids: Iterable[str], errors: Iterable[str]) -> pd.DataFrame:
    """A table of clip_id and error."""
    return pd.DataFrame({"clip_id": list(clip_ids), "error": list(errors)}, dtype=object)


def work_folder(folder: Path, encoder: str) -> Path:
    """Where unfinished work of `encoder` is kept: parts, staged files, the lock."""
    return folder / f"{_checked(encoder)}.parts"


def _checked(encoder: str) -> str:
    if not encoder or Path(encoder).name != encoder or encoder.startswith("."):
        raise AnymodalError(f"{encoder!r} is no name of an encoder")
    return encoder


def _damaged(path: Path, why: object) -> AnymodalError:
    reason = " ".join(str(why).split())
    return AnymodalError(
        f"{path} is damaged ({reason}); restore it, or delete the encoder's three files and run "
        "`anymodal embed` again"
    )
