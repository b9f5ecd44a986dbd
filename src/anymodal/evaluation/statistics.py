"""How sure the results are: intervals, paired tests and the share that zero-shot reaches.

The paper gives single numbers (section 4.2: zero-shot reaches "almost 70% of the best performance
already"). Here each comes with what the finite test set leaves open.

Conventions
-----------
Truth        (items,) names of the test items' classes.
Predicted    (items,), or (seeds, items) for the answers of several trainings. The score is then
             the mean over seeds, and every resample takes the same items for all of them.
Groups       (items,) recordings that must not be split: channels of a take or windows of a file
             are not independent evidence, so whole groups are resampled. None: each item its own.
Undefined    is None: an interval where no two groups of a class could be exchanged (one group,
             no items), a share of a best score of 0.
How          `anymodal.resampling` says how resamples are drawn and what an interval covers.

* :func:`macro_f1_score`, :func:`mean_score`: what to resample
* :func:`bootstrap_interval`: percentile or BCa interval of a score
* :func:`paired_difference`: two systems on the same items, with interval and permutation test
* :func:`zero_shot_ratio`: share of the best system's score, with interval
* :func:`holm`: p-values of several tests, adjusted

There is no McNemar test: it takes items to be independent, and compares accuracies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anymodal.errors import AnymodalError
from anymodal.grading import positive
from anymodal.resampling import (
    BLOCK,
    DEFAULT,
    ROUNDING,
    Interval,
    Names,
    Resampled,
    Resampling,
    Score,
    codes,
)

Answers = Sequence[str] | Sequence[Sequence[str]] | np.ndarray


@dataclass(frozen=True)
class Difference:
    """Macro F1 of one system less that of another on the same items."""

    first: float
    second: float
    value: float
    """`first` − `second`."""
    interval: Interval | None
    p_value: float
    """Two-sided: how often exchanging the systems' names at random parts them as far."""
    exact: bool
    """Whether all exchanges were tried, not a random sample of them."""
    groups: int


@dataclass(frozen=True)
class Share:
    """Zero-shot macro F1 as a share of the best system's (paper, section 4.2)."""

    value: float | None
    """Above 1 where zero-shot beats all others; None where the best score is 0."""
    interval: Interval | None
    zero_shot: float
    best: float
    best_system: str
    groups: int


def class_f1(hits: np.ndarray, said: np.ndarray, there: np.ndarray) -> np.ndarray:
    """F1 from how often a class was named rightly, was named, and was there; any equal shapes.

    NaN for a class that neither was there nor was named.
    """
    total = np.asarray(said + there, dtype=np.float64)
    scores = np.full(total.shape, np.nan)
    np.divide(2 * hits, total, out=scores, where=total > 0)
    return scores


def macro_f1_score(truth: Names, predicted: Answers, classes: Names) -> Score:
    """Macro F1 over `classes`, equal to `anymodal.classification.macro_f1`: a class that neither
    is there nor is named counts as 0, and names outside `classes` are nobody's hit."""
    count = len(classes)
    there = encode(truth, classes)
    answers = seeds_of_answers(predicted, len(there), classes)
    seeds = len(answers)
    own = np.eye(count + 1)[:, :count]
    said = own[answers]
    # (items, there · hits of each seed · said of each seed)
    parts = [own[there], *(own[there] * one for one in said), *said]
    terms = np.concatenate(parts, axis=1)

    def of(sums: np.ndarray) -> np.ndarray:
        counts = sums.reshape(*sums.shape[:-1], 1 + 2 * seeds, count)
        hits, named = counts[..., 1 : 1 + seeds, :], counts[..., 1 + seeds :, :]
        scores = class_f1(hits, named, np.broadcast_to(counts[..., :1, :], hits.shape))
        return np.nan_to_num(scores, copy=False).mean(axis=-1)

    return Score(terms, there, seeds, of)


def mean_score(values: Sequence[float] | np.ndarray, strata: Names | None = None) -> Score:
    """Mean of `values` (items,), or over seeds of (seeds, items), such as the NDCG of queries.

    NaN values are left out. `strata` names each item's class; None: no numbers were given.
    """
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    items, seeds = rows.shape[1], len(rows)
    kinds = np.zeros(items, dtype=np.intp) if strata is None else codes(strata, items, "strata")
    known = ~np.isnan(rows)
    terms = np.concatenate([np.where(known, rows, 0.0), known.astype(np.float64)]).T

    def of(sums: np.ndarray) -> np.ndarray:
        totals, counts = sums[..., :seeds], sums[..., seeds:]
        means = np.full(totals.shape, np.nan)
        return np.divide(totals, counts, out=means, where=counts > 0)

    return Score(terms, kinds, seeds, of)


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

    The test's null hypothesis is that in each group it does not matter which system is which: it
    exchanges their answers group by group (all seeds together) and asks how often the difference
    is as large. All exchanges are tried where they are no more than `permutations`, else that many
    random ones; `how.level` and the classes play no part in it. Identical systems give p = 1.
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
    value = float((scores[0].of(total_a) - scores[1].of(total_b)).mean())
    exact = len(moved) < 63 and 2 ** len(moved) <= permutations
    as_far = tried = 0
    for chosen in _exchanges(len(moved), permutations, exact, np.random.default_rng(how.seed)):
        shift = chosen @ moved
        parted = scores[0].of(total_a + shift) - scores[1].of(total_b - shift)
        as_far += int((np.abs(parted.mean(axis=-1)) >= abs(value) - ROUNDING).sum())
        tried += len(chosen)
    # a random sample counts the order at hand too, so that p is never 0
    p_value = as_far / tried if exact else (as_far + 1) / (tried + 1)
    return Difference(
        first=scores[0].value,
        second=scores[1].value,
        value=value,
        interval=resampled.interval(lambda values: values[0] - values[1]),
        p_value=p_value,
        exact=exact,
        groups=resampled.groups,
    )


def zero_shot_ratio(
    truth: Names,
    zero_shot: Answers,
    others: Mapping[str, Answers],
    classes: Names,
    groups: Names | None = None,
    how: Resampling = DEFAULT,
) -> Share:
    """Macro F1 of `zero_shot` as a share of the best of `others`, all on the same items.

    `others` are the systems that saw labels of the target modality, by name. The best one is
    chosen once, on all items (the first of equals): choosing anew in each resample would favour
    whichever system is lucky there and press the share down.
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
    return Share(
        value=numerator.value / denominator.value if defined else None,
        interval=resampled.interval(share) if defined else None,
        zero_shot=numerator.value,
        best=denominator.value,
        best_system=best,
        groups=resampled.groups,
    )


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values, float64, in the order given (Holm 1979).

    Calling significant what is at most α keeps the chance of any false claim among them below α,
    however the tests depend on each other.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise AnymodalError("p-values must be a list of numbers from 0 to 1")
    order = np.argsort(given, kind="stable")
    adjusted = np.empty_like(given)
    adjusted[order] = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    return np.minimum(adjusted, 1.0)


def encode(names: Names, classes: Names) -> np.ndarray:
    """Place of each name in `classes`, intp (items,); len(classes) for names that are not there."""
    places = {str(name): place for place, name in enumerate(classes)}
    if not places or len(places) < len(classes):
        raise AnymodalError("classes must be distinct names, at least one")
    return np.array([places.get(str(name), len(places)) for name in names], dtype=np.intp)


def seeds_of_answers(predicted: Answers, items: int, classes: Names) -> np.ndarray:
    """Encoded answers as intp (seeds, items), from one seed's (items,) or several seeds'."""
    rows = list(predicted)
    several = len(rows) > 0 and np.ndim(rows[0]) > 0
    seeds = [encode(one, classes) for one in (rows if several else [rows])]
    if any(len(one) != items for one in seeds):
        raise AnymodalError(
            f"{items} test items have {', '.join(str(len(one)) for one in seeds)} answers; "
            "give one a seed and item, in the order of the truth"
        )
    return np.stack(seeds)


def _exchanges(
    groups: int, permutations: int, exact: bool, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Which groups are exchanged, float64 (some, groups), all in all 2^groups or permutations."""
    total = 2**groups if exact else permutations
    step = max(1, BLOCK // max(1, groups))
    for first in range(0, total, step):
        count = min(step, total - first)
        if exact:
            numbers = np.arange(first, first + count)[:, None]
            yield ((numbers >> np.arange(groups)) & 1).astype(np.float64)
        else:
            yield random.integers(0, 2, size=(count, groups), dtype=np.int8).astype(np.float64)
