"""Late fusion: one answer from the audio and the image of a window.

The calibrated probabilities of both modalities are multiplied, each raised to a weight. Weights of
1 are Bayes' rule for equally likely classes and modalities that err independently; they are fitted
by maximum likelihood. Conventions as in `anymodal.classifier.calibration`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import softmax

from anymodal.classifier.calibration import negative_log_likelihood
from anymodal.core.errors import AnymodalError
from anymodal.core.record import Pairing, Record

if TYPE_CHECKING:
    from anymodal.evaluation.classification import LabelledFeatures

_TINY = 1e-12
_MOST = 3.0  # weights beyond are a sign of too few pairs


class Weights(Record):
    """Exponents of the modalities' probabilities."""

    audio: float = 1.0
    image: float = 1.0


class Pairs(NamedTuple):
    """Rows of audio and of images that belong together: intp (pairs,) each."""

    audio: np.ndarray
    image: np.ndarray


def fuse(audio: np.ndarray, image: np.ndarray, weights: Weights) -> np.ndarray:
    """Return probabilities (..., classes) from those of both modalities."""
    logs = weights.audio * np.log(np.maximum(audio, _TINY))
    return softmax(logs + weights.image * np.log(np.maximum(image, _TINY)), axis=-1)


def pairs_of(audio: LabelledFeatures, image: LabelledFeatures, pairing: Pairing) -> Pairs:
    """Pair rows of one clip (`clip`), or each audio row with every image of its class (`class`)."""
    if pairing == "class":
        return Pairs(*np.nonzero(audio.instruments[:, None] == image.instruments[None, :]))
    row_of_image = pd.Index(image.clip_ids).get_indexer(pd.Index(audio.clip_ids))
    rows = np.flatnonzero(row_of_image >= 0)
    return Pairs(rows, row_of_image[rows])


def fit_weights(audio: np.ndarray, image: np.ndarray, truth: np.ndarray) -> Weights:
    """Return the weights of the highest likelihood.

    1 and 1 without pairs, or where these weights answer all pairs correctly, so that the
    likelihood has no maximum.
    """
    if not len(audio) == len(image) == len(truth):
        raise AnymodalError("the audio rows, images and classes of pairs must be equally many")
    if (fuse(audio, image, Weights()).argmax(axis=-1) == truth).all():
        return Weights()

    def loss(weights: np.ndarray) -> float:
        pair = Weights(audio=weights[0], image=weights[1])
        return negative_log_likelihood(fuse(audio, image, pair), truth)

    fitted = minimize(loss, (1.0, 1.0), method="L-BFGS-B", bounds=[(0.0, _MOST)] * 2).x
    # weights of 0 for both would be no answer at all
    return Weights(audio=fitted[0], image=fitted[1]) if fitted.max() > 0 else Weights()
