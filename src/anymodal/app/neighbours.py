"""The training clips nearest to an item, which is why it was answered so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from anymodal.app.media_folder import MediaFolder
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.prediction import Used
from anymodal.reference import Neighbour, Reference


@dataclass(frozen=True)
class Card:
    """A training clip near to an item."""

    neighbour: Neighbour
    preview: str | None
    """`data:` address of its sound or picture; None where its medium is not at hand."""


def query(vectors: Mapping[Modality, np.ndarray], used: Used) -> np.ndarray:
    """What is looked up: the joint vector of the modality that an answer rests on, or the mean of
    both; float64 (dim,), of length 1."""
    kept = [vectors[m] for m in MODALITIES if m in vectors and used in (m, "both")]
    mean = np.mean([np.asarray(one, np.float64) for one in kept], axis=0)
    return mean / (np.linalg.norm(mean) or 1.0)


def nearest_files(
    reference: Reference, vector: np.ndarray, count: int, modality: Modality
) -> list[Neighbour]:
    """The nearest rows of one modality, of each file the nearest one alone, nearest first."""
    wanted = count
    while True:
        rows = reference.nearest(vector, wanted, modality)
        found: dict[str, Neighbour] = {}
        for row in rows:
            found.setdefault(row.path, row)
        if len(found) >= count or len(rows) < wanted:
            return list(found.values())[:count]
        wanted *= 2


def reason(
    reference: Reference, vector: np.ndarray, count: int, media: MediaFolder | None
) -> dict[Modality, list[Card]]:
    """The `count` nearest training clips of each modality, with their media where `media` has
    them."""
    return {
        modality: [
            Card(one, media.preview(one.path, modality, one.start_s) if media else None)
            for one in nearest_files(reference, vector, count, modality)
        ]
        for modality in MODALITIES
    }
