"""From an audio file, an image or a video to the vector that is searched for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anymodal.classifier.joint import By, item_vector
from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import Item, Limits, name_of, segment

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier


def query_vector(
    classifier: ModalityAgnosticClassifier,
    item: Item,
    by: By = "both",
    limits: Limits | None = None,
) -> np.ndarray:
    """The vector of an item in the joint space, float64 (dim,), of length 1: see `item_vector`.

    `by` says what of a video counts; an item of one modality is searched by that. Raises
    `MediaError` for what cannot be decoded, and `AnymodalError` where the item lacks the modality
    that `by` asks for.
    """
    if by not in ("audio", "image", "both"):
        raise AnymodalError(f"search by audio, image or both, not by {by!r}")
    (vectors,) = classifier.embed_windows([segment(item, classifier.sample_rate, limits)])
    if not vectors:
        raise AnymodalError(f"{name_of(item)} has neither audio nor image to search by")
    if by != "both" and by not in vectors:
        has = " and ".join(vectors)
        raise AnymodalError(f"{name_of(item)} has no {by} to search by, only {has}")
    return item_vector(vectors, by)
