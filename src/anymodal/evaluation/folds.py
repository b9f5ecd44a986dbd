"""Kernels of cross-validation: whole sources, or whole groups, are dealt to folds.

Terms
-----
Fold        rows that are tested together, by models that saw none of them.
Source      collection that rows come from; group, recordings that must not be split.
Untrainable a class in a fold that holds all of the class's rows: whoever tests that fold trains
            without the class.

* :func:`deal_sources`: sources to folds as even as can be, with as few untrainable rows as can be
* :func:`deal_groups`: groups to folds of given sizes, at random, class by class
* :func:`untrainable`: which classes of which folds have nothing left to train on
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from anymodal.errors import AnymodalError

_TRIED = 20_000
"""Divisions up to which all are tried; beyond, sources are dealt by size and then moved."""
_PASSES = 5


def untrainable(held: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Bool (..., folds, classes): no row of the class is outside the fold.

    `held` (..., folds, classes) are the rows in each fold, `totals` (classes,) all that there are,
    in folds or not.
    """
    return np.asarray(held) >= np.asarray(totals)


def deal_sources(tested: np.ndarray, training: Sequence[np.ndarray], folds: int) -> np.ndarray:
    """Fold (sources,) of every source, intp; −1 for a source that has nothing to test.

    `tested` (sources, classes) counts the rows that each source tests, each of `training` (same
    shape) rows that a class needs at least one of outside the fold; a source whose classes all lack
    that is not dealt either. Among all divisions the one is
    taken that leaves the fewest tested rows untrainable, then the one whose folds are of most even
    size; of equals the first, sources ordered by size. With too many divisions to try them all,
    sources go, largest first, to the fold where that is best, and are then moved while it helps.
    The result is a function of the numbers alone: no chance enters.
    """
    tested = np.asarray(tested, dtype=np.int64)
    if folds < 2:
        raise AnymodalError(f"cross-validation needs at least two folds, not {folds}")
    if tested.ndim != 2 or any(np.shape(table) != tested.shape for table in training):
        raise AnymodalError("counts of tested and of training rows must be (sources, classes)")
    sizes = tested.sum(axis=1)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    dealt = np.full(len(tested), -1, dtype=np.intp)
    if not len(order):
        return dealt
    tables = np.stack([tested, *training])
    totals = tables.sum(axis=1)
    count = min(folds, len(order))
    if count ** (len(order) - 1) <= _TRIED:
        dealt[order] = _best(tables[:, order], totals, count)
    else:
        dealt[order] = _by_size(tables[:, order], totals, count)
    held = np.stack([tables[:, dealt == fold].sum(axis=1) for fold in range(count)], axis=1)
    lacking = _lacking(held[:, None], totals)[0]
    nothing = (tested[order] * ~lacking[dealt[order]]).sum(axis=1) == 0
    dealt[order[nothing]] = -1
    return dealt


def _best(tables: np.ndarray, totals: np.ndarray, folds: int) -> np.ndarray:
    """The best of all divisions of `tables` (tables, sources, classes) into `folds`."""
    rest = np.array(list(product(range(folds), repeat=tables.shape[1] - 1)), dtype=np.intp)
    # the first source may stand in the first fold: folds have no names
    divisions = np.concatenate([np.zeros((len(rest), 1), dtype=np.intp), rest], axis=1)
    chosen = np.eye(folds, dtype=np.int64)[divisions]
    held = np.einsum("asf,tsc->tafc", chosen, tables)
    lost, uneven = _cost(held, totals)
    return divisions[np.lexsort([uneven, lost])[0]]


def _by_size(tables: np.ndarray, totals: np.ndarray, folds: int) -> np.ndarray:
    """A good division, in time linear in the sources."""
    held = np.zeros((len(tables), folds, tables.shape[2]), dtype=np.int64)
    dealt = np.full(tables.shape[1], -1, dtype=np.intp)
    each = np.eye(folds, dtype=np.int64)
    for _ in range(1 + _PASSES):
        before = dealt.copy()
        for source in range(tables.shape[1]):
            own = tables[:, source]
            if dealt[source] >= 0:
                held[:, dealt[source]] -= own
            tried = held[:, None] + each[None, :, :, None] * own[:, None, None]
            lost, uneven = _cost(tried, totals)
            keep = np.arange(folds) != dealt[source]
            dealt[source] = np.lexsort([keep, uneven, lost])[0]
            held[:, dealt[source]] += own
        if (dealt == before).all():
            break
    return dealt


def _cost(held: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tested rows that are untrainable, and how uneven the folds are, of (tables, divisions,
    folds, classes)."""
    lacking, tested = _lacking(held, totals), held[0]
    kept = np.where(lacking, 0, tested).sum(axis=-1)
    return np.where(lacking, tested, 0).sum(axis=(-2, -1)), (kept**2).sum(axis=-1)


def _lacking(held: np.ndarray, totals: np.ndarray) -> np.ndarray:
    return np.any([untrainable(h, t) for h, t in zip(held, totals, strict=True)], axis=0)


def deal_groups(
    group: np.ndarray, stratum: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Hand (rows,) of every row, intp: groups are dealt at random within strata.

    `group` and `stratum` (rows,) are codes from 0 on; `wanted` (strata, hands) are the rows that
    each hand is to get of each stratum, met as nearly as whole groups allow. A hand that wants
    rows gets a group as long as there are as many groups as such hands. A group of several strata
    belongs to the one it has most of.
    """
    group, stratum = np.asarray(group, dtype=np.intp), np.asarray(stratum, dtype=np.intp)
    if len(group) != len(stratum):
        raise AnymodalError(f"{len(group)} groups and {len(stratum)} strata are not of one table")
    wanted = np.asarray(wanted, dtype=np.float64)
    if not len(group):
        return np.empty(0, dtype=np.intp)
    strata, hands = wanted.shape
    groups = int(group.max()) + 1
    cells, counts = np.unique(group * strata + stratum, return_counts=True)
    sizes = np.bincount(group, minlength=groups)
    home = np.full(groups, -1, dtype=np.intp)
    # the last to write is the stratum with most rows, of equals the first
    most = np.lexsort([-(cells % strata), counts])
    home[cells[most] // strata] = cells[most] % strata
    luck = rng.permutation(groups)
    order = np.lexsort([luck, -sizes, home])
    order = order[home[order] >= 0]
    dealt = np.zeros(groups, dtype=np.intp)
    for members in np.split(order, np.flatnonzero(np.diff(home[order])) + 1):
        ties = rng.permutation(hands)
        due = wanted[home[members[0]]][ties]
        empty = due > 0
        for done, one in enumerate(members):
            must = len(members) - done <= np.count_nonzero(empty)
            hand = int(np.argmax(np.where(empty, due, -np.inf) if must and empty.any() else due))
            due[hand] -= sizes[one]
            empty[hand] = False
            dealt[one] = ties[hand]
    return dealt[group]
