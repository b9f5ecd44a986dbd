"""Which classes are hard, what they are confused with, and whether rare ones suffer (paper, section
4.3, Figs. 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from anymodal.core.errors import AnymodalError
from anymodal.core.record import Record
from anymodal.evaluation.resampling import ROUNDING, Names
from anymodal.evaluation.statistics import Answers, class_f1, encode, encode_answers
from anymodal.ontology.instruments import MIDS

Method = Literal["pearson", "spearman"]
METHODS: tuple[Method, ...] = ("pearson", "spearman")

_LEAST = 3
"""Fewest pairs that a correlation says anything about: two always lie on a line."""


@dataclass(frozen=True)
class ClassScores:
    """One system's answers to one target modality, class by class (paper, Fig. 5)."""

    classes: tuple[str, ...]
    f1: np.ndarray
    """float64 (seeds, classes), in [0, 1]; NaN where a class is in neither truth nor answers."""
    confusion: np.ndarray
    """int64 (classes, classes): items by true class (rows) and answer, summed over seeds."""

    @property
    def mean(self) -> np.ndarray:
        """Mean over the seeds that have an F1, float64 (classes,)."""
        known = ~np.isnan(self.f1)
        counts = known.sum(axis=0)
        means = np.full(len(self.classes), np.nan)
        return np.divide(np.nansum(self.f1, axis=0), counts, out=means, where=counts > 0)


class Correlation(Record):
    """How two values of each class go together."""

    method: Method
    n: int
    """Classes that have both values."""
    value: float | None
    """-1 to 1; None where undefined."""
    p_value: float | None
    """Two-sided, by permutation."""
    reason: str | None = None
    """Why there is no value."""


def class_scores(truth: Names, predicted: Answers, classes: Names) -> ClassScores:
    """Per-class F1 and confusion of the answers `predicted`, (items,) or (seeds, items).

    Raises `AnymodalError` for a name that `classes` lacks.
    """
    count = len(classes)
    true = encode(truth, classes)
    answers = encode_answers(predicted, len(true), classes)
    if (true == count).any() or (answers == count).any():
        known = {str(name) for name in classes}
        listed = [*truth, *np.asarray(predicted, dtype=object).ravel()]
        stranger = next(name for name in listed if str(name) not in known)
        raise AnymodalError(f"{stranger!r} is none of the {count} classes; add it to them")
    cells = (np.arange(len(answers))[:, None] * count + true) * count + answers
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
    whose AudioSet nodes are among its `labels` (mids); each once.
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
) -> Correlation:
    """Correlation of numbers of clips and F1s, one of each per class; classes where one is NaN are
    dropped.

    Its p-value is by permutation: all of them where they are at most `resamples`, else that many
    random ones.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise AnymodalError(
            f"values {first.shape} and {second.shape} do not pair; give one per class"
        )
    known = ~(np.isnan(first) | np.isnan(second))
    first, second = first[known], second[known]
    reason = _undefined(first, second)
    if reason is not None:
        return Correlation(method=method, n=len(first), value=None, p_value=None, reason=reason)
    if method == "spearman":
        first, second = stats.rankdata(first), stats.rankdata(second)
    first, second = _unit(first), _unit(second)
    # rounded, so that orders of equal correlation count as equal
    test = stats.permutation_test(
        (first,),
        lambda values, axis: np.abs(np.tensordot(values, second, axes=(axis, 0))).round(12),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=resamples,
        alternative="greater",
        rng=seed,
    )
    value = float(np.clip(first @ second, -1, 1))
    return Correlation(method=method, n=len(first), value=value, p_value=float(test.pvalue))


def label_correlations(
    counts: Mapping[str, np.ndarray], f1: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> dict[str, list[Correlation]]:
    """How per-class F1 (classes,) goes with each modality's label counts (classes,)."""
    return {
        modality: [correlate(seen, f1, method, resamples, seed) for method in METHODS]
        for modality, seen in counts.items()
    }


def _undefined(first: np.ndarray, second: np.ndarray) -> str | None:
    """Why there is no correlation, or None."""
    if len(first) < _LEAST:
        return f"a correlation needs at least {_LEAST} classes with both values, not {len(first)}"
    for values, label in ((first, "number of clips"), (second, "F1")):
        # means over seeds that should be equal differ in their last bits
        if np.ptp(values) <= ROUNDING * max(1.0, np.abs(values).max()):
            return f"all {len(values)} classes have the same {label} ({values[0]:g})"
    return None


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return centred / np.linalg.norm(centred)
