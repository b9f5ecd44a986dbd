"""From items to predictions: the path that every classifier takes, whatever runs its networks.

items → `segmented` → windows → the classifier's `score_windows` → `combine` → predictions
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.classifier.prediction import Prediction, WindowScores, combine
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.media.segmentation import Item, Limits, SegmentedItem, is_blank, segment

_BATCH_BYTES = 2**28
Score = Callable[[Modality, Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""A function like `BaseClassifier.score_windows`."""


class BaseClassifier(ABC):
    """A classifier of audio, images and videos; subclasses run the networks."""

    calibrator: OpenSetCalibrator

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Hz of the audio that the networks take."""

    @abstractmethod
    def score_windows(
        self, modality: Modality, parts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score the audio, or the images, of one or more windows.

        Returns shares of the forest's votes, float64 (parts, classes), and novelty as a multiple of
        the threshold, float64 (parts,).
        """

    @property
    def classes_(self) -> np.ndarray:
        """The classes as an array of strings."""
        return np.asarray(self.classes, dtype=str)

    def predict(self, items: Iterable[Item], limits: Limits | None = None) -> list[Prediction]:
        """Classify items of any modality, in the order given.

        Items are paths, bytes of files, PIL images, uint8 arrays (height, width, 3), and audio as
        (samples, sample rate in Hz); `limits` says which windows of a long one are used. Raises
        `MediaError`, which names the item, where one cannot be decoded.
        """
        batches = segmented(items, self.sample_rate, limits)
        return [prediction for batch in batches for prediction in self.predict_windows(batch)]

    def predict_proba(self, items: Iterable[Item], limits: Limits | None = None) -> np.ndarray:
        """Return calibrated probabilities, float64 (items, classes), columns as `classes_`."""
        rows = [prediction.probabilities for prediction in self.predict(items, limits)]
        return np.stack(rows) if rows else np.empty((0, len(self.classes)))

    def predict_windows(self, items: Sequence[SegmentedItem]) -> list[Prediction]:
        """`predict` for items that are segmented at `sample_rate` already."""
        return self._predicted(items, self.score_windows)

    def _predicted(self, items: Sequence[SegmentedItem], score: Score) -> list[Prediction]:
        scores: list[dict[Modality, WindowScores]] = [{} for _ in items]
        for modality in MODALITIES:
            parts, numbers, ends = parts_of(items, modality)
            if not parts:
                continue
            blank = np.array([is_blank(part) for part in parts])
            columns = (numbers, *score(modality, parts), blank)
            rows_of_items = zip(*(np.split(column, ends) for column in columns), strict=True)
            for of_item, rows in zip(scores, rows_of_items, strict=True):
                if len(rows[0]):
                    of_item[modality] = WindowScores(*rows)
        return [
            combine(item, of_item, self.calibrator, self.classes)
            for item, of_item in zip(items, scores, strict=True)
        ]


def segmented(
    items: Iterable[Item], sample_rate: int, limits: Limits | None = None
) -> Iterator[list[SegmentedItem]]:
    """Segment items (`anymodal.media.segmentation.segment`) in batches that fit in memory.

    Raises `AnymodalError` for a single item in place of a list.
    """
    single = str | bytes | bytearray | memoryview | Path | np.ndarray | Image.Image
    if isinstance(items, single) or (
        isinstance(items, tuple) and len(items) == 2 and isinstance(items[1], int | float)
    ):
        raise AnymodalError("a list of items is asked for, not one item; write [item]")
    batch: list[SegmentedItem] = []
    size = 0
    for item in items:
        batch.append(segment(item, sample_rate, limits))
        parts = (part for window in batch[-1].windows for part in (window.audio, window.image))
        size += sum(part.nbytes for part in parts if part is not None)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def parts_of(
    items: Sequence[SegmentedItem], modality: Modality
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the audio, or the images, of all windows; each one's number in its item, intp
    (parts,); and where `np.split` splits rows of parts into those of the items."""
    parts, numbers, ends = [], [], []
    for item in items:
        for number, window in enumerate(item.windows):
            part = window.of(modality)
            if part is not None:
                parts.append(part)
                numbers.append(number)
        ends.append(len(parts))
    return parts, np.array(numbers, dtype=np.intp), np.array(ends[:-1], dtype=np.intp)
