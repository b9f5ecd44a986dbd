"""The training rows that a classifier keeps, to show what an item is near to.

`reference.parquet` has a row each: clip_id, modality, instrument, source, path (of the medium in
its dataset, which need not be there) and start_s; `reference.npy` has their joint vectors, float32
(rows, dim), L2-normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from anymodal.encoders.base import Modality
from anymodal.errors import AnymodalError
from anymodal.storage import write_npy, write_parquet

TABLE, VECTORS = "reference.parquet", "reference.npy"
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
        """The `count` rows of one modality nearest to a joint vector (dim,), nearest first."""
        rows = np.flatnonzero((self.table["modality"] == modality).to_numpy())
        cosines = self.vectors[rows] @ vector.astype(np.float32)
        best = np.argsort(-cosines, kind="stable")[:count]
        chosen = self.table.iloc[rows[best]].to_dict("records")
        return [
            Neighbour(**{str(name): value for name, value in row.items()}, cosine=float(cosine))
            for row, cosine in zip(chosen, cosines[best], strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write both files into `folder`."""
        write_npy(folder / VECTORS, self.vectors)
        write_parquet(folder / TABLE, self.table)

    @classmethod
    def load(cls, folder: Path) -> Reference | None:
        """Read what `save` wrote; None where a classifier keeps no training rows."""
        if not (folder / TABLE).is_file():
            return None
        try:
            vectors = np.load(folder / VECTORS, allow_pickle=False)
            return cls(pd.read_parquet(folder / TABLE), vectors)
        except (OSError, ValueError, EOFError, AnymodalError) as error:
            raise AnymodalError(
                f"{folder} has no readable {TABLE} and {VECTORS}; save the classifier again"
            ) from error
