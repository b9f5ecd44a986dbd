"""How certain the results are: intervals, paired tests and the share that zero-shot reaches.

Truth        names of the test items' classes, (items,).
Predicted    (items,), or (seeds, items) for several trainings: the score is then the mean over
             seeds, and every resample takes the same items for all of them.
Groups       (items,) recordings that must not be split; None: each item is its own.
Undefined    is None: an interval where no two groups of a class can be exchanged, a share of a
             best score of 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.record import Record
from anymodal.evaluation.relevance import positive
from anymodal.evaluation.resampling import (
    BLOCK,
    DEFAULT,
    ROUNDING,
    Interval,
    Names,
    Resampled,
    Resampling,
    Score,
)

Answers = Sequence[str] | Sequence[Sequence[str]] | np.ndarray


@dataclass(frozen=True)
class Difference:
    """Macro F1 of one system less that of another on the same items, with its 95 % interval."""

    difference: float
    low: float | None
    high: float | None
    p_value: float
    """Two-sided, of exchanging the systems' answers group by group."""


class ZeroShotShare(Record):
    """Zero-shot macro F1 as a share of the best system's (paper, section 4.2)."""

    share: float | None
    """Above 1 where zero-shot beats all others; None where the best score is 0."""
    low: float | None
    high: float | None
    zero_shot: float
    best: float
    best_system: str


def class_f1(hits: np.ndarray, answered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """F1 from the counts of right answers, answers and items of a class; any equal shapes.

    NaN for a class that has neither items nor answers.
    """
    total = np.asarray(answered + true, dtype=np.float64)
    scores = np.full(total.shape, np.nan)
    np.divide(2 * hits, total, out=scores, where=total > 0)
    return scores


def macro_f1_score(truth: Names, predicted: Answers, classes: Names) -> Score:
    """Macro F1 over `classes`, equal to `anymodal.evaluation.forests.macro_f1`."""
    count = len(classes)
    true = encode(truth, classes)
    answers = encode_answers(predicted, len(true), classes)
    seeds = len(answers)
    one_hot = np.eye(count + 1)[:, :count]
    answered = one_hot[answers]
    # (items, true · hits of each seed · answers of each seed)
    parts = [one_hot[true], *(one_hot[true] * each for each in answered), *answered]
    terms = np.concatenate(parts, axis=1)

    def of(sums: np.ndarray) -> np.ndarray:
        counts = sums.reshape(*sums.shape[:-1], 1 + 2 * seeds, count)
        hits, answers = counts[..., 1 : 1 + seeds, :], counts[..., 1 + seeds :, :]
        scores = class_f1(hits, answers, np.broadcast_to(counts[..., :1, :], hits.shape))
        return np.nan_to_num(scores, copy=False).mean(axis=-1)

    return Score(terms, true, seeds, of)


def mean_score(values: Sequence[float] | np.ndarray) -> Score:
    """Mean of `values` (items,), or over seeds of (seeds, items), such as the NDCG of queries.

    NaN values do not count. All items are of one class.
    """
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    seeds, items = rows.shape
    known = ~np.isnan(rows)
    terms = np.concatenate([np.where(known, rows, 0.0), known.astype(np.float64)]).T

    def of(sums: np.ndarray) -> np.ndarray:
        totals, counts = sums[..., :seeds], sums[..., seeds:]
        means = np.full(totals.shape, np.nan)
        return np.divide(totals, counts, out=means, where=counts > 0)

    return Score(terms, np.zeros(items, dtype=np.intp), seeds, of)


def bootstrap_interval(
    score: Score, groups: Names | None = None, how: Resampling = DEFAULT
) -> Interval | None:
    """Confidence interval of `score` over test items; None where it is undefined."""
    return Resampled([score], groups, how).interval(lambda values: values[0])


def paired_difference(
    truth: Names,
    first: Answers,
    second: Answers,
    classes: Names,
    groups: Names | None = None,
    how: Resampling = DEFAULT,
    permutations: int = 10_000,
) -> Difference:
    """Macro F1 of `first` less that of `second`, answers of two systems to the same items.

    The permutation test exchanges the systems' answers group by group, all seeds together: all
    exchanges where they are at most `permutations`, else that many random ones. Identical systems
    give p = 1.
    """
    positive(permutations, "permutations")
    scores = [macro_f1_score(truth, answers, classes) for answers in (first, second)]
    if scores[0].seeds != scores[1].seeds:
        raise AnymodalError(
            f"{scores[0].seeds} and {scores[1].seeds} seeds cannot be paired; "
            "compare systems trained with the same seeds"
        )
    resampled = Resampled(scores, groups, how)
    a, b = resampled.sums
    total_a, total_b = a.sum(axis=0), b.sum(axis=0)
    # groups answered alike count twice the exchanges but change nothing
    moved = (b - a)[(a != b).any(axis=1)]
    difference = float((scores[0].of(total_a) - scores[1].of(total_b)).mean())
    exact = len(moved) < 63 and 2 ** len(moved) <= permutations
    as_far = tried = 0
    for chosen in _exchanges(len(moved), permutations, exact, np.random.default_rng(how.seed)):
        shift = chosen @ moved
        parted = scores[0].of(total_a + shift) - scores[1].of(total_b - shift)
        as_far += int((np.abs(parted.mean(axis=-1)) >= abs(difference) - ROUNDING).sum())
        tried += len(chosen)
    # a random sample counts the observed order too, so that p is never 0
    p_value = as_far / tried if exact else (as_far + 1) / (tried + 1)
    low, high = resampled.interval(lambda values: values[0] - values[1]) or (None, None)
    return Difference(difference, low, high, p_value)


def zero_shot_ratio(
    truth: Names,
    zero_shot: Answers,
    others: Mapping[Any, Answers],
    classes: Names,
    groups: Names | None = None,
    how: Resampling = DEFAULT,
) -> ZeroShotShare:
    """Macro F1 of `zero_shot` as a share of the best of `others`, all on the same items.

    `others` are the systems that saw labels of the target modality, by name. The best one is
    chosen once: choosing again in each resample would bias the share downwards.
    """
    if not others:
        raise AnymodalError("no other system to compare zero-shot with; give at least one")
    scores = {name: macro_f1_score(truth, answers, classes) for name, answers in others.items()}
    best = max(scores, key=lambda name: scores[name].value)
    numerator, denominator = macro_f1_score(truth, zero_shot, classes), scores[best]
    resampled = Resampled([numerator, denominator], groups, how)

    def share(values: np.ndarray) -> np.ndarray:
        ratio = np.full(values.shape[1:], np.nan)
        return np.divide(values[0], values[1], out=ratio, where=values[1] > 0)

    defined = denominator.value > 0
    low, high = (resampled.interval(share) if defined else None) or (None, None)
    return ZeroShotShare(
        share=numerator.value / denominator.value if defined else None,
        low=low,
        high=high,
        zero_shot=numerator.value,
        best=denominator.value,
        best_system=best,
    )


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values, float64, in the order given (Holm 1979).

    Calling significant what is at most α bounds the probability of any false claim by α.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    adjusted = np.empty_like(given)
    adjusted[order] = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    return np.minimum(adjusted, 1.0)


def encode(names: Names, classes: Names) -> np.ndarray:
    """Place of each name in `classes`, intp (items,); len(classes) for other names."""
    places = {str(name): place for place, name in enumerate(classes)}
    if not places or len(places) < len(classes):
        raise AnymodalError("classes must be distinct names, at least one")
    return np.array([places.get(str(name), len(places)) for name in names], dtype=np.intp)


def encode_answers(predicted: Answers, items: int, classes: Names) -> np.ndarray:
    """Encoded answers as intp (seeds, items), from one seed's (items,) or several seeds'."""
    rows = list(predicted)
    several = len(rows) > 0 and np.ndim(rows[0]) > 0
    seeds = [encode(each, classes) for each in (rows if several else [rows])]
    if any(len(each) != items for each in seeds):
        raise AnymodalError(
            f"{items} test items have {', '.join(str(len(each)) for each in seeds)} answers; "
            "give one per seed and item, in the order of the truth"
        )
    return np.stack(seeds)


def _exchanges(
    groups: int, permutations: int, exact: bool, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Blocks of exchanges, float64 (exchanges, groups), 2^groups or `permutations` in total."""
    total = 2**groups if exact else permutations
    step = max(1, BLOCK // max(1, groups))
    for first in range(0, total, step):
        count = min(step, total - first)
        if exact:
            numbers = np.arange(first, first + count)[:, None]
            yield ((numbers >> np.arange(groups)) & 1).astype(np.float64)
        else:
            yield rng.integers(0, 2, size=(count, groups), dtype=np.int8).astype(np.float64)
