"""The index behind `/search`: `anymodal.search.Index`, asked with vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal.classifier.joint import item_vector
from anymodal.core.modality import Modality

if TYPE_CHECKING:
    from anymodal.search import Index

_COLUMNS = ["path", "modality", "kind", "seconds"]


class Neighbours:
    """Finds the rows of an index that are most similar to an item. For one thread."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._rows = index.rows[_COLUMNS]

    def __call__(
        self, vectors: Mapping[Modality, np.ndarray], count: int, modality: Modality | None
    ) -> list[dict[str, Any]]:
        """The `count` most similar rows of the index, best first, as JSON values.

        `vectors` are of the joint space, (dim,), one of each modality that the item has.
        """
        hits = self._index.search(item_vector(vectors)[None], count, modality)
        rows = self._rows.iloc[hits.rows[0]].to_dict("records")
        return [
            {"rank": rank, "cosine": float(cosine), **row}
            for rank, (row, cosine) in enumerate(zip(rows, hits.cosines[0], strict=True), 1)
        ]
