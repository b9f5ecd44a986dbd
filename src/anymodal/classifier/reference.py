"""The training rows that a classifier keeps, to show what an item is near to.

`reference.parquet` has the columns `COLUMNS` and `vector`; `path` is that of the media file in its
dataset, which need not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.core.storage import write_parquet
from anymodal.evaluation.retrieval import top_k

TABLE = "reference.parquet"
COLUMNS = ("clip_id", "modality", "instrument", "source", "path", "start_s")


class Neighbour(NamedTuple):
    """A training row near to an item."""

    clip_id: str
    modality: Modality
    instrument: str
    source: str
    path: str
    start_s: float
    cosine: float


@dataclass(frozen=True)
class Reference:
    """Rows of the training set in the joint space."""

    table: pd.DataFrame
    """Columns `COLUMNS`."""
    vectors: np.ndarray
    """float32 (rows, dim), L2-normalised."""

    def __post_init__(self) -> None:
        columns = list(self.table.columns)
        if columns != list(COLUMNS) or self.vectors.shape[:-1] != (len(self.table),):
            raise AnymodalError(
                f"vectors of shape {self.vectors.shape} and a table of {len(self.table)} rows with "
                f"columns {', '.join(map(str, columns))} are no reference"
            )

    def nearest(self, vector: np.ndarray, count: int, modality: Modality) -> list[Neighbour]:
        """Return the `count` rows of one modality nearest to a joint vector (dim,), nearest
        first."""
        rows = np.flatnonzero((self.table["modality"] == modality).to_numpy())
        if not count or not len(rows):
            return []
        cosines = self.vectors[rows] @ vector.astype(np.float32)
        best = top_k(vector[None], self.vectors[rows], count)[0]
        chosen = self.table.iloc[rows[best]].assign(cosine=cosines[best].astype(float))
        return [Neighbour(*row) for row in chosen.itertuples(index=False, name=None)]

    def save(self, folder: Path) -> None:
        """Write `reference.parquet` into `folder`."""
        write_parquet(folder / TABLE, self.table.assign(vector=list(self.vectors)))

    @classmethod
    def load(cls, folder: Path) -> Reference | None:
        """Read what `save` wrote; None where a classifier keeps no training rows."""
        if not (folder / TABLE).is_file():
            return None
        try:
            table = pd.read_parquet(folder / TABLE)
            vectors = table.pop("vector").to_list()
            return cls(table, np.stack(vectors) if vectors else np.empty((0, 0), np.float32))
        except (OSError, ValueError, KeyError, AnymodalError) as error:
            raise AnymodalError(
                f"{folder} has no readable {TABLE}; save the classifier again"
            ) from error
