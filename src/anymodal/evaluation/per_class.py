"""Which classes are hard, what they are taken for, and whether rare ones suffer (Figs. 5 and 6).

Goal: to put a number on what the paper reads off its figures (section 4.3): classes "with fewer
number of instances" in the data that trained the translation are the ones that it confuses.

Conventions
-----------
Truth, predicted   as in `anymodal.statistics`; names that `classes` lacks are refused.
F1                 of a class, in [0, 1]; NaN where the class neither was there nor was named.
                   (Macro F1 counts such a class as 0.)
Confusion          rows are the truth, columns what was named.
Label counts       clips that carry a class's label: a clip of several instruments counts for each
                   of them, as in Fig. 6, and one of none for nothing.
Undefined          correlations are None with a reason: equal counts correlate with nothing.

* :func:`class_scores`: F1 and confusion of one system
* :func:`label_counts`: how often each class stands in the translation's training data (Fig. 6)
* :func:`correlate`: Pearson's and Spearman's correlation with a permutation test
* :func:`label_correlations`: both, of label counts and per-class F1, for each modality
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Literal

import numpy as np
from scipy import stats

from anymodal.dataset.instruments import MIDS
from anymodal.errors import AnymodalError
from anymodal.grading import positive
from anymodal.resampling import ROUNDING, Names
from anymodal.statistics import Answers, class_f1, encode, seeds_of_answers

Method = Literal["pearson", "spearman"]
METHODS: tuple[Method, ...] = ("pearson", "spearman")

_LEAST = 3
"""Fewest pairs that a correlation says anything of: two always lie on a line."""
_BLOCK = 2**20
"""Most values permuted at once."""


@dataclass(frozen=True)
class ClassScores:
    """One system's answers to one target modality, class by class (paper, Fig. 5)."""

    classes: tuple[str, ...]
    f1: np.ndarray
    """float64 (seeds, classes)."""
    confusion: np.ndarray
    """Items of each true class (rows) by what they were called, summed over seeds, int64
    (classes, classes)."""

    @property
    def mean(self) -> np.ndarray:
        """Mean over the seeds that have an F1, float64 (classes,)."""
        known = ~np.isnan(self.f1)
        counts = known.sum(axis=0)
        means = np.full(len(self.classes), np.nan)
        return np.divide(np.nansum(self.f1, axis=0), counts, out=means, where=counts > 0)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation over those seeds (n − 1; 0 for one seed), float64 (classes,)."""
        counts = (~np.isnan(self.f1)).sum(axis=0)
        squares = np.nansum((self.f1 - self.mean) ** 2, axis=0)
        return np.where(counts > 0, np.sqrt(squares / np.maximum(counts - 1, 1)), np.nan)

    @property
    def shares(self) -> np.ndarray:
        """`confusion` as shares of each true class, rows summing to 1, float64 (classes,
        classes); NaN rows for classes without items."""
        totals = self.confusion.sum(axis=1, keepdims=True)
        shares = np.full(self.confusion.shape, np.nan)
        return np.divide(self.confusion, totals, out=shares, where=totals > 0)


@dataclass(frozen=True)
class Correlation:
    """How two values of each class go together."""

    method: Method
    n: int
    """Classes that have both values."""
    value: float | None
    """-1 to 1."""
    p_value: float | None
    """Two-sided, by permutation: how often values dealt to the classes at random correlate as
    strongly, either way."""
    p_value_t: float | None
    """Two-sided, by Student's t: what is usually printed. It needs normal values, or many."""
    exact: bool
    """Whether all permutations were tried, not a random sample of them."""
    reason: str | None = None
    """Why there is no value."""


def class_scores(truth: Names, predicted: Answers, classes: Names) -> ClassScores:
    """Per-class F1 and confusion of the answers `predicted`, (items,) or (seeds, items)."""
    count = len(classes)
    there = encode(truth, classes)
    answers = seeds_of_answers(predicted, len(there), classes)
    if (there == count).any() or (answers == count).any():
        known = {str(name) for name in classes}
        listed = [*truth, *np.asarray(predicted, dtype=object).ravel()]
        stranger = next(name for name in listed if str(name) not in known)
        raise AnymodalError(f"{stranger!r} is none of the {count} classes; add it to them")
    cells = (np.arange(len(answers))[:, None] * count + there) * count + answers
    tables = np.bincount(cells.ravel(), minlength=len(answers) * count**2)
    tables = tables.reshape(len(answers), count, count)
    hits = tables.diagonal(axis1=1, axis2=2)
    return ClassScores(
        classes=tuple(str(name) for name in classes),
        f1=class_f1(hits, tables.sum(axis=1), tables.sum(axis=2)),
        confusion=tables.sum(axis=0),
    )


def label_counts(
    labels: Sequence[Sequence[str]], instruments: Sequence[str | None] | np.ndarray, classes: Names
) -> np.ndarray:
    """Clips that carry each class, int64 (classes,): paper, Fig. 6.

    A clip carries the class that `instruments` names (None or NaN: none or several) and those
    whose AudioSet nodes are among its `labels` (mids); each once. Give the rows of one modality
    that the translation was trained on.
    """
    if len(labels) != len(instruments):
        raise AnymodalError(f"{len(labels)} lists of labels for {len(instruments)} instruments")
    names = [str(name) for name in classes]
    of_mid = {mid: name for name in names for mid in MIDS.get(name, ())}
    counts = dict.fromkeys(names, 0)
    for mids, instrument in zip(labels, instruments, strict=True):
        for name in {of_mid[mid] for mid in mids if mid in of_mid} | {instrument}:
            if isinstance(name, str) and name in counts:
                counts[name] += 1
    return np.array([counts[name] for name in names], dtype=np.int64)


def correlate(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    method: Method = "spearman",
    resamples: int = 10_000,
    seed: int = 0,
    called: tuple[str, str] = ("x", "y"),
) -> Correlation:
    """Correlation of `x` and `y`, one value a class each; classes where one is NaN are left out.

    Spearman's ρ, with mean ranks for ties, asks whether one grows with the other at all; Pearson's
    r whether it does so in proportion. All permutations are tried where they are no more than
    `resamples` (up to seven classes at 10,000), else that many random ones. `called` names the
    two values in the reason why there is no correlation.
    """
    positive(resamples, "resamples")
    if method not in METHODS:
        raise AnymodalError(f"method must be {' or '.join(METHODS)}, not {method!r}")
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise AnymodalError(
            f"values {first.shape} and {second.shape} do not pair; give one a class"
        )
    if np.isinf(first).any() or np.isinf(second).any():
        raise AnymodalError("values to correlate must be finite")
    known = ~(np.isnan(first) | np.isnan(second))
    first, second = first[known], second[known]
    n = len(first)
    reason = _reason(first, second, called)
    if reason is not None:
        return Correlation(method, n, None, None, None, False, reason)
    if method == "spearman":
        first, second = stats.rankdata(first), stats.rankdata(second)
    unit_first, unit_second = _standard(first), _standard(second)
    value = float(np.clip(unit_first @ unit_second, -1, 1))
    exact = math.factorial(n) <= resamples
    as_far = tried = 0
    for orders in _orders(n, resamples, exact, np.random.default_rng(seed)):
        dealt = unit_second[orders] @ unit_first
        as_far += int((np.abs(dealt) >= abs(value) - ROUNDING).sum())
        tried += len(orders)
    p_value = as_far / tried if exact else (as_far + 1) / (tried + 1)
    spare = 1 - value**2
    # at ±1 the t statistic is infinite
    t = abs(value) * math.sqrt((n - 2) / spare) if spare > ROUNDING else math.inf
    return Correlation(method, n, value, p_value, float(2 * stats.t.sf(t, n - 2)), exact)


def label_correlations(
    counts: Mapping[str, np.ndarray], f1: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> dict[str, dict[Method, Correlation]]:
    """How per-class F1 (classes,) goes with each modality's label counts (classes,).

    A class's share of a modality's clips correlates as its count does, so counts are enough.
    """
    return {
        modality: {
            method: correlate(seen, f1, method, resamples, seed, ("number of clips", "F1"))
            for method in METHODS
        }
        for modality, seen in counts.items()
    }


def _reason(first: np.ndarray, second: np.ndarray, called: tuple[str, str]) -> str | None:
    """Why two lists of values have no correlation, or None."""
    if len(first) < _LEAST:
        return f"a correlation needs {_LEAST} classes at least that have both values: {len(first)}"
    for values, name in zip((first, second), called, strict=True):
        # means over seeds that should be equal differ in their last bits
        if np.ptp(values) <= ROUNDING * max(1.0, np.abs(values).max()):
            return f"all {len(values)} classes have the same {name} ({values[0]:g})"
    return None


def _standard(values: np.ndarray) -> np.ndarray:
    away = values - values.mean()
    return away / np.linalg.norm(away)


def _orders(
    n: int, resamples: int, exact: bool, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Permutations of n places, intp (some, n), all in all n! or `resamples`."""
    step = max(1, _BLOCK // n)
    if exact:
        every = permutations(range(n))
        while block := list(islice(every, step)):
            yield np.array(block, dtype=np.intp)
        return
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        yield random.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
