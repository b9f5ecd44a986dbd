"""The training clips nearest to an item in the joint space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from anymodal.app.media_folder import MediaFolder
from anymodal.app.rendering import render
from anymodal.classifier.prediction import Prediction
from anymodal.classifier.reference import Neighbour, Reference
from anymodal.core.modality import MODALITIES, Modality


@dataclass(frozen=True)
class Card:
    """A training clip near an item."""

    neighbour: Neighbour
    preview: str | None
    """`data:` address of its audio or image; None where the media folder does not have it."""


def nearest_files(
    reference: Reference, vector: np.ndarray, count: int, modality: Modality
) -> list[Neighbour]:
    """The nearest row of each of the `count` nearest files of a modality, nearest first."""
    rows = count
    while True:
        neighbours = reference.nearest(vector, rows, modality)
        by_path: dict[str, Neighbour] = {}
        for neighbour in neighbours:
            by_path.setdefault(neighbour.path, neighbour)
        if len(by_path) >= count or len(neighbours) < rows:
            return list(by_path.values())[:count]
        rows *= 2


def nearest_cards(
    reference: Reference, vector: np.ndarray, count: int, media: MediaFolder | None
) -> dict[Modality, list[Card]]:
    """The `count` nearest training clips of each modality, with previews from `media`."""
    return {
        modality: [
            Card(one, media.preview(one.path, modality, one.start_s) if media else None)
            for one in nearest_files(reference, vector, count, modality)
        ]
        for modality in MODALITIES
    }


def neighbours_html(
    answer: Prediction, cards: Mapping[Modality, list[Card]], has_media: bool
) -> str:
    """The cards; `has_media` says whether a media folder was given."""
    best = answer.top(1)[0][0]
    classes = [card.neighbour.instrument for m in cards for card in cards[m]]
    return render(
        "neighbours", cards=cards, best=best, same=classes.count(best), total=len(classes),
        has_media=has_media,
    )  # fmt: skip
