"""From a sound, a picture or a film to the vector that is searched for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import Item, Limits, name_of, segment

if TYPE_CHECKING:
    from anymodal.search.identity import Embedder

By = Literal["audio", "image", "both"]


def query_vector(
    classifier: Embedder, item: Item, by: By = "both", limits: Limits | None = None
) -> np.ndarray:
    """The vector of an item in the joint space, float64 (dim,), of length 1.

    `by` tells what of a film counts: its sound, its picture, or both, which is the mean of the two
    vectors, brought to length 1. Rows are then ranked by the mean of their cosines with its sound
    and with its picture. An item of one modality is searched by that.

    Raises `MediaError` for what cannot be decoded, and `AnymodalError` where the item lacks the
    modality that `by` asks for.
    """
    if by not in ("audio", "image", "both"):
        raise AnymodalError(f"search by audio, image or both, not by {by!r}")
    (found,) = classifier.embed_windows([segment(item, classifier.sample_rate, limits)])
    if by != "both" and by not in found:
        there = " and ".join(found)
        raise AnymodalError(f"{name_of(item)} has no {by} to search by, only {there}")
    vectors = [np.asarray(v, dtype=np.float64) for m, v in found.items() if by in (m, "both")]
    if not vectors:
        raise AnymodalError(f"{name_of(item)} has neither sound nor picture to search by")
    vector = np.mean([v / (np.linalg.norm(v) or 1.0) for v in vectors], axis=0)
    return vector / (np.linalg.norm(vector) or 1.0)
