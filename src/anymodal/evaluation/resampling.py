"""Resamples of a test set: how much a score depends on the recordings that are in it.

Groups are drawn with replacement within the classes, so a resample has every class. Of n groups
n − 1 are drawn, each weighted n / (n − 1): the variance of a mean is then unbiased (Rao & Wu 1988,
JASA 83). Intervals are BCa (Efron 1987), which corrects bias and skewness.

Metrics that are functions of sums over items are evaluated on all resamples at once: a matrix
product of weights (replicates, groups) and sums (groups, terms).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.relevance import positive

Names = Sequence[str] | np.ndarray

LEVEL = 0.95
"""Share of intervals that should hold the true score."""
BLOCK = 2**22
"""Most weights held at once: 32 MiB of float64."""
ROUNDING = 1e-12
"""Differences below it are rounding: sums of the same terms in another order."""


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed."""

    replicates: int = 5000
    seed: int = 0
    resample_seeds: bool = False
    """Draw the seeds too, of which all systems need equally many; intervals are then percentiles,
    because BCa's acceleration is defined for one kind of groups."""

    def __post_init__(self) -> None:
        positive(self.replicates, "replicates")


DEFAULT = Resampling()


@dataclass(frozen=True)
class Score:
    """A metric that is a function of sums over items, of one or several seeds."""

    terms: np.ndarray
    """float64 (items, terms)."""
    strata: np.ndarray
    """Each item's class, intp (items,)."""
    seeds: int
    of: Callable[[np.ndarray], np.ndarray]
    """The metric of each seed from summed terms: (..., terms) → (..., seeds)."""

    @property
    def value(self) -> float:
        """Mean over seeds on the items as they are."""
        return float(self.of(self.terms.sum(axis=0)).mean())


class Resampled:
    """Several scores of the same items, on the same resamples of their groups.

    `groups` is their number, `sums` each score's terms summed by group, float64 (groups, terms),
    `strata` each group's class, intp (groups,).
    """

    def __init__(self, scores: Sequence[Score], groups: Names | None, how: Resampling) -> None:
        items = len(scores[0].terms)
        self.how = how
        self.scores = scores
        if how.resample_seeds and len({score.seeds for score in scores}) > 1:
            raise AnymodalError("resampling seeds needs equally many seeds of every system")
        of_item = np.arange(items) if groups is None else codes(groups, items)
        self.groups = int(of_item.max(initial=-1)) + 1
        order = np.argsort(of_item, kind="stable")
        starts = np.searchsorted(of_item[order], np.arange(self.groups))
        self.sums = [
            np.add.reduceat(score.terms[order], starts, axis=0) if items else score.terms
            for score in scores
        ]
        strata = scores[0].strata
        kinds = int(strata.max(initial=0)) + 1
        # a group of several classes belongs to the one it has most of
        counts = np.bincount(of_item * kinds + strata, minlength=self.groups * kinds)
        self.strata = counts.reshape(self.groups, kinds).argmax(axis=1)

    def interval(self, combine: Callable[[np.ndarray], np.ndarray]) -> Interval | None:
        """Interval of `combine`, a function of the scores' values (scores, ...) → (...)."""
        sizes = np.bincount(self.strata, minlength=1)
        seeds_vary = self.how.resample_seeds and self.scores[0].seeds > 1
        if not self.groups or not (sizes.max() > 1 or seeds_vary):
            return None
        replicates = combine(self._replicates())
        replicates = replicates[~np.isnan(replicates)]
        if not len(replicates):
            return None
        tails = np.array([1 - LEVEL, 1 + LEVEL]) / 2
        if not self.how.resample_seeds:
            totals = [sums.sum(axis=0) for sums in self.sums]
            tails = _bca(
                tails, replicates, float(combine(self._values(totals))), self._skew(combine)
            )
        low, high = np.quantile(replicates, tails)
        return Interval(float(low), float(high))

    def _values(self, sums: Sequence[np.ndarray], seeds: np.ndarray | None = None) -> np.ndarray:
        """Scores (scores, ...) of summed terms; `seeds` (..., seeds) weighs the seeds."""
        by_seed = [score.of(each) for score, each in zip(self.scores, sums, strict=True)]
        weights = 1.0 if seeds is None else seeds
        return np.stack([(values * weights).mean(axis=-1) for values in by_seed])

    def _replicates(self) -> np.ndarray:
        rng = np.random.default_rng(self.how.seed)
        step = max(1, BLOCK // self.groups)
        blocks = []
        for first in range(0, self.how.replicates, step):
            count = min(step, self.how.replicates - first)
            weights = _weights(self.strata, count, rng)
            seeds = None
            if self.how.resample_seeds:
                seeds = _weights(np.zeros(self.scores[0].seeds, dtype=np.intp), count, rng)
            blocks.append(self._values([weights @ sums for sums in self.sums], seeds))
        return np.concatenate(blocks, axis=1)

    def _skew(self, combine: Callable[[np.ndarray], np.ndarray]) -> float:
        """BCa's acceleration by the jackknife over groups within strata (Davison & Hinkley 1997,
        "Bootstrap methods", section 5.3.2)."""
        sizes = np.bincount(self.strata)[self.strata][:, None]
        without = []
        for sums in self.sums:
            of_strata = np.zeros((int(self.strata.max()) + 1, sums.shape[1]))
            np.add.at(of_strata, self.strata, sums)
            # the stratum's other groups make up for the one that is dropped
            shift = (of_strata[self.strata] - sizes * sums) / np.maximum(sizes - 1, 1)
            without.append(sums.sum(axis=0) + np.where(sizes > 1, shift, 0.0))
        values = np.nan_to_num(combine(self._values(without)))
        n = sizes[:, 0]
        mean = np.bincount(self.strata, values)[self.strata] / n
        pull = (n - 1) * (mean - values) / n
        spread = (pull**2).sum()
        return float((pull**3).sum() / (6 * spread**1.5)) if spread > ROUNDING**2 else 0.0


def _bca(tails: np.ndarray, replicates: np.ndarray, value: float, skew: float) -> np.ndarray:
    """Quantiles of the replicates at which a BCa interval ends."""
    below = ((replicates < value - ROUNDING).mean() + (replicates <= value + ROUNDING).mean()) / 2
    if not 0 < below < 1:
        return tails
    bias = ndtri(below)
    away = bias + ndtri(tails)
    # far out the correction turns over, and its ends would cross
    if (skew * away >= 1).any():
        return tails
    return ndtr(bias + away / (1 - skew * away))


def _weights(strata: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Weight of each group in each of `count` resamples, float64 (count, groups)."""
    weights = np.ones((count, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        if n < 2:
            continue
        drawn = rng.integers(n, size=(count, n - 1)) + n * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        weights[:, members] = times * (n / (n - 1))
    return weights


def codes(groups: Names, items: int) -> np.ndarray:
    """Number of each item's group, intp (items,), in order of appearance."""
    if len(groups) != items:
        raise AnymodalError(f"{len(groups)} groups for {items} test items; give one per item")
    numbers = pd.factorize(np.array(list(groups), dtype=object))[0]
    if (numbers < 0).any():
        raise AnymodalError("an item has no group; name the group of every item")
    return numbers
