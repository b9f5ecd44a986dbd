"""Calibration: probabilities that say how often an answer is right.

Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", ICML) divides the
logarithms of a forest's shares of votes by one number, which changes no ranking of classes.

Conventions: probabilities are float64 (rows, classes), each row summing to 1; truth is intp
(rows,), the index of each row's class; confidence is the probability of the most probable class.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from anymodal.core.errors import AnymodalError
from anymodal.core.record import Record

_RANGE = (0.05, 20.0)  # temperatures beyond are a sign of too few rows


class ReliabilityPoint(Record):
    """Rows of similar confidence: mean confidence, and the share answered correctly."""

    confidence: float
    accuracy: float
    rows: int


def tempered(shares: np.ndarray, temperature: float, floor: float) -> np.ndarray:
    """Return probabilities ∝ max(share, floor) ^ (1 / temperature) over the last axis."""
    return softmax(np.log(np.maximum(shares, floor)) / temperature, axis=-1)


def fit_temperature(shares: np.ndarray, truth: np.ndarray, floor: float) -> float:
    """Return the temperature of the highest likelihood; 1 without rows.

    Where every answer is correct the likelihood has no maximum; then one error in rows + 2 is
    assumed (rule of succession).
    """
    _check(shares, truth)
    if not len(truth):
        return 1.0
    rows, classes = shares.shape
    doubt = 1 / (rows + 2) if (shares.argmax(axis=1) == truth).all() and classes > 1 else 0.0

    def loss(log_temperature: float) -> float:
        probabilities = tempered(shares, np.exp(log_temperature), floor)
        nll = negative_log_likelihood(probabilities, truth)
        if not doubt:
            return nll
        wrong = np.log(probabilities).sum() / rows + nll
        return (1 - doubt) * nll - doubt * wrong / (classes - 1)

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded").x))


def negative_log_likelihood(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over rows, in nats; NaN without rows."""
    if not len(truth):
        return float("nan")
    chosen = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def reliability(
    probabilities: np.ndarray, truth: np.ndarray, bins: int = 10
) -> list[ReliabilityPoint]:
    """Return confidence and accuracy in `bins` bins of equal width, without the empty ones."""
    _check(probabilities, truth)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    bin_of_row = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityPoint(
            confidence=confidence[rows].mean(), accuracy=correct[rows].mean(), rows=rows.sum()
        )
        for rows in (bin_of_row == number for number in np.unique(bin_of_row))
    ]


def expected_calibration_error(
    probabilities: np.ndarray, truth: np.ndarray, bins: int = 10
) -> float:
    """Return the mean over rows of |confidence − accuracy| of their bin, in [0, 1]; NaN without
    rows (Guo et al. 2017, equation 3)."""
    points = reliability(probabilities, truth, bins)
    if not points:
        return float("nan")
    return sum(p.rows * abs(p.confidence - p.accuracy) for p in points) / len(truth)


def _check(probabilities: np.ndarray, truth: np.ndarray) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise AnymodalError(
            f"probabilities of shape {probabilities.shape} and {len(truth)} true classes do not "
            "describe the same rows"
        )
