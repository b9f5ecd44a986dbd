"""Late fusion: one answer from the sound and the picture of the same moment.

Both modalities' calibrated probabilities are multiplied, each raised to a weight: with weights of 1
that is Bayes' rule for classes that are equally likely beforehand and modalities that err
independently of each other. The weights are fitted on validation pairs by maximum likelihood, since
they do not quite.

Conventions as in `anymodal.calibration`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import coo_array

from anymodal.calibration import negative_log_likelihood, normalised
from anymodal.errors import AnymodalError
from anymodal.resampling import BLOCK, Interval

_TINY = 1e-12
_MOST = 3.0
"""A weight beyond is a sign of too few pairs."""


class Weights(NamedTuple):
    """How much each modality counts."""

    audio: float = 1.0
    image: float = 1.0


class Pairs(NamedTuple):
    """Rows of sounds and of pictures that show the same: intp (pairs,) each."""

    audio: np.ndarray
    image: np.ndarray


class Gain(NamedTuple):
    """Accuracy of the fused answers beside that of each modality alone, on the same pairs."""

    audio: float
    image: float
    both: float
    better: str
    """The modality that does better alone."""
    difference: float
    """Fused minus the better one."""
    interval: Interval | None
    """95 %, over recordings and pictures; None where there is no pair."""
    pairs: int


def fuse(audio: np.ndarray, image: np.ndarray, weights: Weights) -> np.ndarray:
    """Probabilities (rows, classes) from those of both modalities, row by row."""
    logs = weights.audio * np.log(np.maximum(audio, _TINY))
    return normalised(logs + weights.image * np.log(np.maximum(image, _TINY)))


def pairs_of(
    audio_classes: np.ndarray,
    image_classes: np.ndarray,
    clips: tuple[np.ndarray, np.ndarray] | None = None,
) -> Pairs:
    """Which sound goes with which picture.

    `clips`, both tables' clip ids, pairs rows of the same clip. Without it every sound goes with
    every picture of its class: what un-filmed data allows, and flatters nobody, for each modality
    alone is judged on the same pairs.
    """
    if clips is None:
        sounds, pictures = np.nonzero(audio_classes[:, None] == image_classes[None, :])
        return Pairs(sounds, pictures)
    place = {clip: row for row, clip in enumerate(clips[1].tolist())}
    found = [(row, place[clip]) for row, clip in enumerate(clips[0].tolist()) if clip in place]
    table = np.array(found, dtype=np.intp).reshape(-1, 2)
    return Pairs(table[:, 0], table[:, 1])


def fit_weights(audio: np.ndarray, image: np.ndarray, truth: np.ndarray) -> Weights:
    """The weights of the highest likelihood.

    1 and 1 where there are no pairs, or where these weights answer all of them rightly, so that
    likelihood has no maximum.
    """
    if not len(audio) == len(image) == len(truth):
        raise AnymodalError("sounds, pictures and classes of pairs must be as many")
    if (fuse(audio, image, Weights()).argmax(axis=-1) == truth).all():
        return Weights()

    def loss(weights: np.ndarray) -> float:
        return negative_log_likelihood(fuse(audio, image, Weights(*weights)), truth)

    found = minimize(loss, (1.0, 1.0), method="L-BFGS-B", bounds=[(0.0, _MOST)] * 2)
    chosen = Weights(*(float(one) for one in found.x))
    # all weight gone from both is no answer at all
    return chosen if max(chosen) > 0 else Weights()


def gain(
    right: dict[str, np.ndarray],
    pairs: Pairs,
    groups: tuple[np.ndarray, np.ndarray],
    *,
    replicates: int,
    seed: int,
    filmed: bool = False,
) -> Gain:
    """Compare fused answers with each modality alone.

    `right` says of each pair whether `audio`, `image` and `both` answered rightly (bool (pairs,)).
    `groups` are the recordings of the sound rows and of the picture rows; both are drawn anew in
    every replicate, independently unless the pairs are `filmed`, where they are the same (Owen
    2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1).
    """
    alone = {name: _mean(right[name]) for name in ("audio", "image")}
    better = max(alone, key=lambda name: alone[name])
    delta = right["both"].astype(np.float64) - right[better]
    return Gain(
        alone["audio"],
        alone["image"],
        _mean(right["both"]),
        better,
        _mean(delta),
        _interval(delta, pairs, groups, replicates, seed, filmed),
        len(delta),
    )


def _interval(
    delta: np.ndarray,
    pairs: Pairs,
    groups: tuple[np.ndarray, np.ndarray],
    replicates: int,
    seed: int,
    filmed: bool,
) -> Interval | None:
    """95 % interval of the mean of `delta` (pairs,); see `gain`."""
    if not len(delta):
        return None
    sounds, pictures = (np.unique(names, return_inverse=True)[1] for names in groups)
    shape = int(sounds.max()) + 1, int(pictures.max()) + 1
    cells = sounds[pairs.audio], pictures[pairs.image]
    sums = coo_array((delta, cells), shape).tocsr()
    counts = coo_array((np.ones(len(delta)), cells), shape).tocsr()
    chance = np.random.default_rng(seed)
    drawn = []
    step = max(1, BLOCK // max(shape))
    for first in range(0, replicates, step):
        size = min(step, replicates - first)
        of_sounds = _times(shape[0], size, chance)
        of_pictures = 1.0 if filmed else _times(shape[1], size, chance)
        totals = ((of_sounds @ counts) * of_pictures).sum(axis=1)
        found = ((of_sounds @ sums) * of_pictures).sum(axis=1)
        drawn.append(found[totals > 0] / totals[totals > 0])
    values = np.concatenate(drawn)
    if not len(values):
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high))


def _times(groups: int, replicates: int, chance: np.random.Generator) -> np.ndarray:
    """How often each group is in each resample of as many, float64 (replicates, groups)."""
    return chance.multinomial(groups, np.full(groups, 1 / groups), replicates).astype(np.float64)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
