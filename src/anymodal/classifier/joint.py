"""The one vector of the joint space that an item is compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from anymodal.core.modality import Modality

By = Literal["audio", "image", "both"]


def item_vector(vectors: Mapping[Modality, np.ndarray], by: By = "both") -> np.ndarray:
    """The vector of an item: float64 (dim,), of length 1.

    `vectors` holds (dim,) a modality that the item has. `by` says which of them counts; `both` is
    the mean of unit vectors, by which rows are ranked as by the mean of their cosines with each.
    """
    own = [np.asarray(v, dtype=np.float64) for m, v in vectors.items() if by in (m, "both")]
    mean = np.mean([vector / (np.linalg.norm(vector) or 1.0) for vector in own], axis=0)
    return mean / (np.linalg.norm(mean) or 1.0)
