"""Answers of a classifier: of an item as a whole, and of each of its moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from anymodal.encoders.base import Modality

Used = Literal["audio", "image", "both"]
UNKNOWN = "unknown"
"""The answer where an item is like nothing that the classifier was trained on."""


@dataclass(frozen=True)
class MomentAnswer:
    """The answer for one moment of an item: a second of a sound or of a film, or a picture."""

    start_s: float
    seconds: float
    modality: Used
    """What the answer rests on."""
    probabilities: np.ndarray
    """Calibrated, float64 (classes,)."""
    known: bool


@dataclass(frozen=True)
class Prediction:
    """The classifier's answer for one item."""

    item: str
    """The file's name, or what it was, such as `<bytes>`."""
    modality: Used
    """What the answer rests on."""
    classes: tuple[str, ...]
    probabilities: np.ndarray
    """float64 (classes,), summing to 1; calibrated on validation rows. They are of the classes
    that the classifier knows, whether the item is `known` or not."""
    known: bool
    """False: probably nothing that the classifier was trained on."""
    novelty: Mapping[Modality, float]
    """Median over moments, as a multiple of what is taken for known at most."""
    moments: tuple[MomentAnswer, ...]
    """In the order of time."""

    @property
    def answer(self) -> str:
        """The most probable class, or `unknown`."""
        return self.top(1)[0][0] if self.known else UNKNOWN

    def top(self, count: int) -> list[tuple[str, float]]:
        """The `count` most probable classes with their probabilities, best first."""
        return ranked(self.classes, self.probabilities)[:count]

    def as_row(self) -> dict[str, Any]:
        """The answer as one row of a table: the answer, then a column a class."""
        return {
            "instrument": self.answer,
            "probability": self.top(1)[0][1],
            "modality": self.modality,
            **dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
        }

    def as_dict(self) -> dict[str, Any]:
        """The answer as plain JSON values."""
        return {
            "item": self.item,
            "modality": self.modality,
            "instrument": self.answer,
            "known": self.known,
            "probabilities": dict(self.top(len(self.classes))),
            "novelty": dict(self.novelty),
            "moments": [_told(one, self.classes) for one in self.moments],
        }


def ranked(classes: Sequence[str], probabilities: np.ndarray) -> list[tuple[str, float]]:
    """Classes with their probabilities, best first; ties in the order of the classes."""
    order = np.argsort(-probabilities, kind="stable")
    return [(classes[i], float(probabilities[i])) for i in order]


def timeline(answers: Sequence[Prediction]) -> pd.DataFrame:
    """One row a moment of every item.

    Columns: item, start_s, seconds, modality, instrument (or `unknown`), probability, then one a
    class.
    """
    columns = ["item", "start_s", "seconds", "modality", "instrument", "probability"]
    rows = [
        {
            "item": answer.item,
            **_told(one, answer.classes),
            **dict(zip(answer.classes, one.probabilities.tolist(), strict=True)),
        }
        for answer in answers
        for one in answer.moments
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def _told(one: MomentAnswer, classes: Sequence[str]) -> dict[str, Any]:
    """A moment as JSON values; its probability is that of the most probable class."""
    name, probability = ranked(classes, one.probabilities)[0]
    return {
        "start_s": one.start_s,
        "seconds": one.seconds,
        "modality": one.modality,
        "instrument": name if one.known else UNKNOWN,
        "probability": probability,
    }
