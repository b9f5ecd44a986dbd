"""From items to moments, and from what was found in those back to an answer for each item: the same
whether PyTorch and scikit-learn find it (`anymodal.model`) or onnxruntime (`anymodal.onnx.runner`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from anymodal.encoders.base import Modality
from anymodal.errors import AnymodalError
from anymodal.items import Item, Limits, Moments, is_blank, take_apart
from anymodal.judge import LEAST_KNOWN, Judge
from anymodal.prediction import MomentAnswer, Prediction, Used

_HELD = 2**28
"""Bytes of decoded items that are held at once, about: photographs and films are large."""


def taken_apart(
    items: Iterable[Item], sample_rate: int, limits: Limits | None = None
) -> Iterator[list[Moments]]:
    """Items taken apart (`anymodal.items.take_apart`), a few at a time.

    Raises `AnymodalError` for what is one item, not a list of items.
    """
    if _is_one(items):
        raise AnymodalError("a list of items is asked for, not one item; write [item]")
    some: list[Moments] = []
    held = 0
    for item in items:
        some.append(take_apart(item, sample_rate, limits))
        parts = (part for one in some[-1].moments for part in (one.audio, one.image))
        held += sum(part.nbytes for part in parts if part is not None)
        if held >= _HELD:
            yield some
            some, held = [], 0
    if some:
        yield some


class Predicting(ABC):
    """What every classifier answers, whatever computes it; `predict_moments` is its own."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Hz of the sounds that it takes."""

    @abstractmethod
    def predict_moments(self, items: Sequence[Moments]) -> list[Prediction]:
        """`predict` for items that `anymodal.items.take_apart` took apart at `sample_rate`."""

    @property
    def classes_(self) -> np.ndarray:
        """The classes as an array of strings."""
        return np.asarray(self.classes, dtype=str)

    def predict(self, items: Iterable[Item], limits: Limits | None = None) -> list[Prediction]:
        """Classify items, sounds, pictures and films mixed, in the order given.

        Parameters
        ----------
        items: paths, bytes of files, PIL pictures, uint8 arrays (height, width, 3), and sounds as
            (samples, sample rate in Hz).
        limits: how much of a long item is looked at.

        A sound is judged by its one-second moments and a film by those and a frame of each; both
        modalities of a film are fused. What cannot be decoded raises `MediaError`, which names it.
        """
        found: list[Prediction] = []
        for some in taken_apart(items, self.sample_rate, limits):
            found += self.predict_moments(some)
        return found

    def predict_proba(self, items: Iterable[Item], limits: Limits | None = None) -> np.ndarray:
        """Calibrated probabilities, float64 (items, classes), columns as `classes_`."""
        answers = [one.probabilities for one in self.predict(items, limits)]
        return np.stack(answers) if answers else np.empty((0, len(self.classes)))


def _is_one(items: object) -> bool:
    if isinstance(items, tuple) and len(items) == 2:
        return isinstance(items[1], int | float | np.number)
    return isinstance(items, str | bytes | bytearray | memoryview | Path | np.ndarray | Image.Image)


def gathered(
    items: Sequence[Moments], modality: Modality
) -> tuple[list[np.ndarray], list[dict[int, int]]]:
    """The sounds, or pictures, of all moments that have one; and for each item, which moment's is
    at which place."""
    parts: list[np.ndarray] = []
    where: list[dict[int, int]] = []
    for item in items:
        places = {}
        for number, moment in enumerate(item.moments):
            part = moment.of(modality)
            if part is not None:
                places[number] = len(parts)
                parts.append(part)
        where.append(places)
    return parts, where


def answer(
    item: Moments,
    places: Mapping[Modality, Mapping[int, int]],
    votes: Mapping[Modality, np.ndarray],
    novelties: Mapping[Modality, np.ndarray],
    judge: Judge,
    classes: tuple[str, ...],
) -> Prediction:
    """The answer for one item.

    Parameters
    ----------
    places: of each modality that the item has, which moment is in which row.
    votes: shares of the forest's votes, float64 (rows, classes), of each modality.
    novelties: as `Judge.novelties`, float64 (rows,), of each modality.
    """
    blank = {
        (modality, number): is_blank(_part(item, modality, number))
        for modality, rows in places.items()
        for number in rows
    }
    clear = {
        (modality, number): bool(novelties[modality][row] <= 1.0) and not blank[modality, number]
        for modality, rows in places.items()
        for number, row in rows.items()
    }
    whole: dict[Modality, np.ndarray] = {}
    some_known: dict[Modality, bool] = {}
    for modality, rows in places.items():
        here = list(rows.values())
        familiar = np.array([clear[modality, number] for number in rows])
        some_known[modality] = bool(familiar.any())
        # a pause or a word between two notes says nothing of the instrument
        counted = votes[modality][here][familiar] if familiar.any() else votes[modality][here]
        whole[modality] = judge.calibrated(modality, counted.mean(axis=0, keepdims=True))
    used, probabilities = _fused(whole, some_known, judge)
    moments = []
    for number, moment in enumerate(item.moments):
        rows_of = {m: rows[number] for m, rows in places.items() if number in rows}
        shares = {m: judge.calibrated(m, votes[m][[row]]) for m, row in rows_of.items()}
        known = {m: clear[m, number] for m in rows_of}
        rests_on, of_moment = _fused(shares, known, judge)
        moments.append(
            MomentAnswer(moment.start_s, moment.seconds, rests_on, of_moment, any(known.values()))
        )
    telling = [
        one.known
        for number, one in enumerate(moments)
        if not all(blank[m, number] for m, rows in places.items() if number in rows)
    ]
    return Prediction(
        item=item.item,
        modality=used,
        classes=classes,
        probabilities=probabilities,
        known=bool(telling) and float(np.mean(telling)) >= LEAST_KNOWN,
        novelty={
            m: float(np.median(novelties[m][list(rows.values())])) for m, rows in places.items()
        },
        moments=tuple(moments),
    )


def _part(item: Moments, modality: Modality, number: int) -> np.ndarray:
    part = item.moments[number].of(modality)
    assert part is not None
    return part


def _fused(
    probabilities: Mapping[Modality, np.ndarray], known: Mapping[Modality, bool], judge: Judge
) -> tuple[Used, np.ndarray]:
    """Which modalities an answer rests on, and its probabilities (classes,): those that are known,
    or all where none is."""
    used = {m: p for m, p in probabilities.items() if known[m]} or dict(probabilities)
    rests_on: Used = "both" if len(used) == 2 else next(iter(used))
    return rests_on, judge.fused(used)[0]
