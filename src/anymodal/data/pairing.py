"""Pairs of audio and image that the translation is trained on.

`clip`   A row holds audio and image of the same second, and is a pair by itself. No two pairs share
         a code: classes are not used (paper, section 3.2).
`class`  Audio and images belong together only by their label. An epoch draws the same number of
         pairs from every class; within a class the rows of each modality are cycled in independent
         random orders, so that their uses differ by one at most and each epoch joins other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import PAIRINGS

Classes = Sequence[str | None] | np.ndarray | pd.Series


class Pairs(NamedTuple):
    """Rows that belong together: three int64 arrays of one length."""

    audio: np.ndarray
    """Positions among the audio rows."""
    image: np.ndarray
    """Positions among the image rows."""
    code: np.ndarray
    """Class number (`class` pairing) or row number (`clip`): pairs of equal code show the same
    content, as far as the data say."""


class PairSampler:
    """Draws an epoch's pairs from the audio and image rows of one split.

    audio_classes, image_classes: class of every row; not used with `clip` pairing. Raises
    `AnymodalError` without rows, for a class without rows in one of the modalities, and for `clip`
    rows that do not match.
    """

    classes: tuple[str, ...]
    """Names of the classes, in the order of their codes; empty for `clip` pairing."""

    def __init__(self, audio_classes: Classes, image_classes: Classes, pairing: str) -> None:
        if pairing not in PAIRINGS:
            raise AnymodalError(f"pairing is {' or '.join(PAIRINGS)}, not {pairing!r}")
        for rows, modality in ((audio_classes, "audio"), (image_classes, "images")):
            if not len(rows):
                raise AnymodalError(f"no {modality} to pair; this split of the data is empty")
        self.pairing = pairing
        self._length = max(len(audio_classes), len(image_classes))
        self.classes = ()
        if pairing == "clip":
            if len(audio_classes) != len(image_classes):
                raise AnymodalError(
                    "clip pairing needs audio and image in every row: there are "
                    f"{len(audio_classes)} audio and {len(image_classes)} images"
                )
            return
        audio, image = _positions(audio_classes), _positions(image_classes)
        for lone, lacking in ((audio.keys() - image, "image"), (image.keys() - audio, "audio")):
            if lone:
                raise AnymodalError(
                    f"class {min(lone)!r} has no {lacking} to pair with in this split "
                    f"({len(lone)} such class(es)); add some, or leave the class out"
                )
        self.classes = tuple(sorted(audio))
        self._rows = [(audio[name], image[name]) for name in self.classes]

    def __len__(self) -> int:
        """Pairs an epoch: as many as the modality with more rows has rows."""
        return self._length

    def epoch(self, rng: np.random.Generator) -> Pairs:
        """Draw one epoch's pairs, in random order."""
        if self.pairing == "clip":
            rows = rng.permutation(self._length)
            return Pairs(rows, rows.copy(), rows.copy())
        # with fewer pairs than classes, or a remainder, random classes get one more
        counts = np.full(len(self.classes), self._length // len(self.classes))
        counts[rng.permutation(len(self.classes))[: self._length % len(self.classes)]] += 1
        drawn = [
            (_cycled(audio, count, rng), _cycled(image, count, rng))
            for (audio, image), count in zip(self._rows, counts, strict=True)
        ]
        audio, image = map(np.concatenate, zip(*drawn, strict=True))
        code = np.repeat(np.arange(len(self.classes)), counts)
        order = rng.permutation(self._length)
        return Pairs(audio[order], image[order], code[order])


def _positions(classes: Classes) -> dict[str, np.ndarray]:
    series = pd.Series(np.asarray(classes, dtype=object))
    if series.isna().any():
        raise AnymodalError("class pairing needs a class for every row; some have none")
    groups = series.groupby(series, sort=True).indices
    return {str(name): np.asarray(rows, dtype=np.int64) for name, rows in groups.items()}


def _cycled(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of `rows`, each used as often as any other or once more."""
    rounds = [rng.permutation(rows) for _ in range(-(-int(count) // len(rows)))]
    return np.concatenate([*rounds, rows[:0]])[:count]
