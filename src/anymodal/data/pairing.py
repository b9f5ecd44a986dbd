"""Pairs of sound and picture that the translation is trained on.

Two kinds of data, two ways to pair:

`clip`   A row holds a sound and a picture of the same moment, and is a pair by itself. Every row
         is used once an epoch and no two pairs share a code: nothing is known of classes
         (paper, section 3.2).
`class`  Sounds and pictures belong together only by their label. An epoch draws the same number
         of pairs from every class, so that a rare class counts as much as a common one: the paper
         finds the classes that are rare in its translation data confused the most (section 4.3).
         Within a class the rows of each modality take turns in random order, so their uses in an
         epoch differ by one at most, and the two orders are independent: each epoch joins a sound
         with other pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from anymodal.dataset.clips import PAIRINGS
from anymodal.errors import AnymodalError

Classes = Sequence[str | None] | np.ndarray | pd.Series


class Pairs(NamedTuple):
    """Sounds and pictures that belong together: three int64 arrays of one length."""

    audio: np.ndarray
    """Positions among the sounds."""
    image: np.ndarray
    """Positions among the pictures."""
    code: np.ndarray
    """Class number (`class` pairing) or row number (`clip`): pairs of equal code show the same
    thing as far as the data tell."""


class PairSampler:
    """Draws an epoch's pairs from the sounds and pictures of one split.

    Parameters
    ----------
    audio_classes, image_classes
        Class of every sound and of every picture. With `clip` pairing the two describe the same
        rows, and the classes themselves are not looked at: they may be None.
    pairing
        `clip` or `class`.

    Raises
    ------
    AnymodalError
        No rows; a class without rows in one of the modalities; `clip` rows that do not match.
    """

    classes: tuple[str, ...]
    """Names of the classes, in the order of their codes; empty for `clip` pairing."""

    def __init__(self, audio_classes: Classes, image_classes: Classes, pairing: str) -> None:
        if pairing not in PAIRINGS:
            raise AnymodalError(f"pairing is {' or '.join(PAIRINGS)}, not {pairing!r}")
        if not len(audio_classes) or not len(image_classes):
            lacking = "sounds" if not len(audio_classes) else "pictures"
            raise AnymodalError(f"no {lacking} to pair; this split of the data is empty")
        self.pairing = pairing
        self._length = max(len(audio_classes), len(image_classes))
        self.classes = ()
        self._audio: list[np.ndarray] = []
        self._image: list[np.ndarray] = []
        if pairing == "clip":
            if len(audio_classes) != len(image_classes):
                raise AnymodalError(
                    f"clip pairing needs a picture for every sound: there are "
                    f"{len(audio_classes)} sounds and {len(image_classes)} pictures"
                )
            return
        sounds, pictures = _positions(audio_classes), _positions(image_classes)
        for here, there, what in ((sounds, pictures, "picture"), (pictures, sounds, "sound")):
            lonely = sorted(here.keys() - there.keys())
            if lonely:
                raise AnymodalError(
                    f"class {lonely[0]!r} has no {what} to pair with in this split "
                    f"({len(lonely)} such class(es)); add some, or leave the class out"
                )
        self.classes = tuple(sorted(sounds))
        self._audio = [sounds[name] for name in self.classes]
        self._image = [pictures[name] for name in self.classes]

    def __len__(self) -> int:
        """Pairs an epoch: as many as the modality with more rows has rows."""
        return self._length

    def epoch(self, rng: np.random.Generator) -> Pairs:
        """One epoch's pairs, in random order; a function of the generator's state alone."""
        if self.pairing == "clip":
            rows = rng.permutation(self._length)
            return Pairs(rows, rows.copy(), rows.copy())
        # with fewer pairs than classes, or a remainder, chance decides who gets one more
        counts = np.full(len(self.classes), self._length // len(self.classes))
        lucky = rng.permutation(len(self.classes))[: self._length % len(self.classes)]
        counts[lucky] += 1
        turns = zip(self._audio, self._image, counts, strict=True)
        drawn = [(_turns(a, n, rng), _turns(i, n, rng)) for a, i, n in turns]
        code = np.repeat(np.arange(len(self.classes)), counts)
        order = rng.permutation(self._length)
        audio = np.concatenate([each for each, _ in drawn])
        image = np.concatenate([each for _, each in drawn])
        return Pairs(audio[order], image[order], code[order])


def fixed_pairs(
    audio_classes: Classes, image_classes: Classes, pairing: str, seed: int = 0
) -> Pairs:
    """The same pairs at every call, for a validation loss that can be compared between epochs.

    One epoch of a `PairSampler`, drawn with `seed`.
    """
    sampler = PairSampler(audio_classes, image_classes, pairing)
    return sampler.epoch(np.random.default_rng(seed))


def _positions(classes: Classes) -> dict[str, np.ndarray]:
    series = pd.Series(np.asarray(classes, dtype=object))
    if series.isna().any():
        raise AnymodalError("class pairing needs a class for every row; some have none")
    groups = series.groupby(series, sort=True).indices
    return {str(name): np.asarray(rows, dtype=np.int64) for name, rows in groups.items()}


def _turns(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of `rows`, each used as often as any other or once more."""
    rounds = [rng.permutation(rows) for _ in range(-(-int(count) // len(rows)))]
    return np.concatenate([*rounds, rows[:0]])[:count]
