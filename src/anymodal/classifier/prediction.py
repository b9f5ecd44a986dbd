"""Predictions of items and of their windows, and the rule that combines the latter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from anymodal.core.modality import Modality

if TYPE_CHECKING:
    from anymodal.classifier.open_set import OpenSetCalibrator
    from anymodal.media.segmentation import SegmentedItem

Used = Literal["audio", "image", "both"]
UNKNOWN = "unknown"
"""The answer for items unlike anything that the classifier was trained on."""
LEAST_KNOWN = 0.5
"""Share of the windows, blank ones aside, that must be known for the item to be known."""


@dataclass(frozen=True)
class WindowPrediction:
    """The prediction for one window: a second of audio or video, or an image.

    `modality` is what it uses; `probabilities` are calibrated, float64 (classes,).
    """

    start_s: float
    seconds: float
    modality: Used
    probabilities: np.ndarray
    known: bool

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return JSON values; `probability` is that of the most probable class."""
        name, probability = ranked(classes, self.probabilities)[0]
        return {
            "start_s": self.start_s,
            "seconds": self.seconds,
            "modality": self.modality,
            "instrument": name if self.known else UNKNOWN,
            "probability": probability,
        }


@dataclass(frozen=True)
class Prediction:
    """The prediction for one item."""

    item: str
    """The file's name, or the kind of object, such as `<bytes>`."""
    modality: Used
    classes: tuple[str, ...]
    probabilities: np.ndarray
    """Calibrated, float64 (classes,), summing to 1 for unknown items too."""
    known: bool
    """False: probably none of the classes."""
    novelty: Mapping[Modality, float]
    """Median over windows, as a multiple of the threshold."""
    windows: tuple[WindowPrediction, ...]

    @property
    def answer(self) -> str:
        """The most probable class, or `unknown`."""
        return self.top(1)[0][0] if self.known else UNKNOWN

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the `count` most probable classes with their probabilities, best first."""
        return ranked(self.classes, self.probabilities)[:count]

    def as_row(self) -> dict[str, Any]:
        """Return the answer as a row of a table: the answer, then one column per class."""
        return {
            "instrument": self.answer,
            "probability": self.top(1)[0][1],
            "modality": self.modality,
            **dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        return {
            "item": self.item,
            "modality": self.modality,
            "instrument": self.answer,
            "known": self.known,
            "probabilities": dict(self.top(len(self.classes))),
            "novelty": dict(self.novelty),
            "windows": [window.as_dict(self.classes) for window in self.windows],
        }


def ranked(classes: Sequence[str], probabilities: np.ndarray) -> list[tuple[str, float]]:
    """Return classes with their probabilities, best first; ties in the order of the classes."""
    order = np.argsort(-probabilities, kind="stable")
    return [(classes[i], float(probabilities[i])) for i in order]


def timeline(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Return one row per window of every item.

    Columns: item, start_s, seconds, modality, instrument (or `unknown`), probability, then one per
    class.
    """
    columns = ["item", "start_s", "seconds", "modality", "instrument", "probability"]
    rows = [
        {
            "item": prediction.item,
            **window.as_dict(prediction.classes),
            **dict(zip(prediction.classes, window.probabilities.tolist(), strict=True)),
        }
        for prediction in predictions
        for window in prediction.windows
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


class WindowScores(NamedTuple):
    """What the networks make of one modality of an item, one row per window that has it."""

    windows: np.ndarray
    """Numbers of the windows, intp (rows,)."""
    votes: np.ndarray
    """float64 (rows, classes)."""
    novelty: np.ndarray
    """float64 (rows,)."""
    blank: np.ndarray
    """bool (rows,)."""


def combine(
    item: SegmentedItem,
    scores: Mapping[Modality, WindowScores],
    calibrator: OpenSetCalibrator,
    classes: tuple[str, ...],
) -> Prediction:
    """Combine the scores of an item's windows into its prediction.

    A modality of a window is clear where it is neither blank nor novel. Its votes are averaged over
    the clear windows, or over all where none is clear, and then calibrated. The modalities with a
    clear window are fused, or all where none has.
    """
    clear = {m: (of.novelty <= 1.0) & ~of.blank for m, of in scores.items()}
    known, visible = np.zeros((2, len(item.windows)), dtype=bool)
    for m, of in scores.items():
        known[of.windows[clear[m]]] = True
        visible[of.windows[~of.blank]] = True

    def answer(numbers: Sequence[int]) -> tuple[Used, np.ndarray]:
        every: dict[Modality, np.ndarray] = {}
        only_clear: dict[Modality, np.ndarray] = {}
        for m, of in scores.items():
            rows = np.isin(of.windows, numbers)
            for probabilities, counted in ((every, rows), (only_clear, rows & clear[m])):
                if counted.any():
                    probabilities[m] = calibrator.calibrated(m, of.votes[counted].mean(axis=0))
        used = only_clear or every
        return "both" if len(used) == 2 else next(iter(used)), calibrator.fused(used)

    used, probabilities = answer(range(len(item.windows)))
    return Prediction(
        item=item.item,
        modality=used,
        classes=classes,
        probabilities=probabilities,
        known=bool(visible.any()) and float(known[visible].mean()) >= LEAST_KNOWN,
        novelty={m: float(np.median(of.novelty)) for m, of in scores.items()},
        windows=tuple(
            WindowPrediction(window.start_s, window.seconds, *answer([number]), bool(known[number]))
            for number, window in enumerate(item.windows)
        ),
    )
