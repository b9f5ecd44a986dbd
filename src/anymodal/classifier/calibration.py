"""Calibration: probabilities that say how often an answer is right.

A forest's share of votes is no such probability. Temperature scaling (Guo et al. 2017, "On
calibration of modern neural networks", ICML) divides the logarithms of the shares by one number,
which changes no ranking of classes; the number is fitted on validation rows by maximum likelihood.

Conventions: probabilities are float64 (rows, classes), each row summing to 1; truth is intp
(rows,), the index of each row's class; a confidence is the probability of the most probable class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from anymodal.errors import AnymodalError

_RANGE = (0.05, 20.0)
"""Temperatures beyond are a sign of too few rows."""


class Bin(NamedTuple):
    """Rows of similar confidence (a point of a reliability diagram)."""

    confidence: float
    """Mean of theirs."""
    accuracy: float
    """Share of them that were answered rightly."""
    rows: int


def tempered(shares: np.ndarray, temperature: float, floor: float) -> np.ndarray:
    """Probabilities ∝ max(share, floor) ^ (1 / temperature).

    `floor` stands in for a share of no vote at all, of which the logarithm does not exist.
    """
    logs = np.log(np.maximum(shares, floor)) / temperature
    return normalised(logs)


def normalised(logs: np.ndarray) -> np.ndarray:
    """Probabilities from their logarithms up to a constant a row."""
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def fit_temperature(shares: np.ndarray, truth: np.ndarray, floor: float) -> float:
    """The temperature of the highest likelihood; 1 where there are no rows.

    Where every row is answered rightly likelihood has no maximum, and would make the probabilities
    of all answers 1: then one error in rows + 2 is taken for granted (the rule of succession).
    """
    _check(shares, truth)
    if not len(truth):
        return 1.0
    rows, classes = shares.shape
    doubt = 1 / (rows + 2) if (shares.argmax(axis=1) == truth).all() and classes > 1 else 0.0

    def loss(log_temperature: float) -> float:
        found = tempered(shares, np.exp(log_temperature), floor)
        told = (1 - doubt) * negative_log_likelihood(found, truth)
        if doubt:
            others = np.log(found).sum() / rows + negative_log_likelihood(found, truth)
            told -= doubt * others / (classes - 1)
        return told

    found = minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    return float(np.exp(found.x))


def negative_log_likelihood(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over rows, in nats; NaN where there are none."""
    if not len(truth):
        return float("nan")
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def reliability(probabilities: np.ndarray, truth: np.ndarray, bins: int = 10) -> list[Bin]:
    """Confidence against accuracy in `bins` bins of equal width, those without rows left out."""
    _check(probabilities, truth)
    if not len(truth):
        return []
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Bin(float(confidence[of].mean()), float(right[of].mean()), int(of.sum()))
        for of in (place == number for number in range(bins))
        if of.any()
    ]


def expected_calibration_error(
    probabilities: np.ndarray, truth: np.ndarray, bins: int = 10
) -> float:
    """Mean over rows of |confidence − accuracy| of their bin, in [0, 1]; NaN where there are none
    (Guo et al. 2017, equation 3)."""
    points = reliability(probabilities, truth, bins)
    if not points:
        return float("nan")
    gaps = [point.rows * abs(point.confidence - point.accuracy) for point in points]
    return float(sum(gaps) / sum(point.rows for point in points))


def _check(probabilities: np.ndarray, truth: np.ndarray) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise AnymodalError(
            f"probabilities of shape {probabilities.shape} and {len(truth)} true classes do not "
            "describe the same rows"
        )
