"""Kernels of cross-validation: whole sources, or whole groups, are assigned to folds.

A class is untrainable in a fold that holds all of the class's rows: whoever tests that fold trains
without the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

_TRIED = 20_000
"""Most divisions that are all tried."""
_PASSES = 5


def untrainable(held: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Bool (..., folds, classes): no row of the class is outside the fold.

    `held` (..., folds, classes) are the rows in each fold, `totals` (classes,) all that there are,
    in folds or not.
    """
    return np.asarray(held) >= np.asarray(totals)


def assign_sources(tested: np.ndarray, training: Sequence[np.ndarray], folds: int) -> np.ndarray:
    """Fold (sources,) of every source, intp; −1 for a source that cannot be tested.

    `tested` (sources, classes) counts the rows that each source tests, each of `training` (same
    shape) the rows of which a class needs at least one outside the fold. Of all divisions, the one
    with the fewest untrainable rows is taken, then the one with the most even folds, then the
    first. With too many divisions to try, sources go to the best fold, largest first, and are then
    moved while that helps. Nothing is random.
    """
    tested = np.asarray(tested, dtype=np.int64)
    sizes = tested.sum(axis=1)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    fold_of = np.full(len(tested), -1, dtype=np.intp)
    if not len(order):
        return fold_of
    tables = np.stack([tested, *training])
    totals = tables.sum(axis=1)
    count = min(folds, len(order))
    if count ** (len(order) - 1) <= _TRIED:
        fold_of[order] = _best(tables[:, order], totals, count)
    else:
        fold_of[order] = _by_size(tables[:, order], totals, count)
    held = np.stack([tables[:, fold_of == fold].sum(axis=1) for fold in range(count)], axis=1)
    lacking = _lacking(held[:, None], totals)[0]
    nothing = (tested[order] * ~lacking[fold_of[order]]).sum(axis=1) == 0
    fold_of[order[nothing]] = -1
    return fold_of


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
    fold_of = np.full(tables.shape[1], -1, dtype=np.intp)
    each = np.eye(folds, dtype=np.int64)
    for _ in range(1 + _PASSES):
        before = fold_of.copy()
        for source in range(tables.shape[1]):
            counts = tables[:, source]
            if fold_of[source] >= 0:
                held[:, fold_of[source]] -= counts
            tried = held[:, None] + each[None, :, :, None] * counts[:, None, None]
            lost, uneven = _cost(tried, totals)
            keep = np.arange(folds) != fold_of[source]
            fold_of[source] = np.lexsort([keep, uneven, lost])[0]
            held[:, fold_of[source]] += counts
        if (fold_of == before).all():
            break
    return fold_of


def _cost(held: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tested rows that are untrainable, and how uneven the folds are, of (tables, divisions,
    folds, classes)."""
    lacking, tested = _lacking(held, totals), held[0]
    kept = np.where(lacking, 0, tested).sum(axis=-1)
    return np.where(lacking, tested, 0).sum(axis=(-2, -1)), (kept**2).sum(axis=-1)


def _lacking(held: np.ndarray, totals: np.ndarray) -> np.ndarray:
    return np.any([untrainable(h, t) for h, t in zip(held, totals, strict=True)], axis=0)


def assign_groups(
    group: np.ndarray, stratum: np.ndarray, quota: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Fold of every row, intp (rows,): groups are assigned at random within strata.

    `group` and `stratum` (rows,) are codes from 0 on; `quota` (strata, folds) is the number of rows
    wanted in each fold, met as nearly as whole groups allow. A fold with a quota gets a group as
    long as there are enough groups. A group of several strata belongs to the one it has most of.
    """
    quota = np.asarray(quota, dtype=np.float64)
    if not len(group):
        return np.empty(0, dtype=np.intp)
    strata, folds = quota.shape
    groups = int(group.max()) + 1
    cells, counts = np.unique(group * strata + stratum, return_counts=True)
    sizes = np.bincount(group, minlength=groups)
    home = np.full(groups, -1, dtype=np.intp)
    # the last to write is the stratum with most rows, of equals the first
    most = np.lexsort([-(cells % strata), counts])
    home[cells[most] // strata] = cells[most] % strata
    order = np.lexsort([rng.permutation(groups), -sizes, home])
    order = order[home[order] >= 0]
    fold_of = np.zeros(groups, dtype=np.intp)
    for members in np.split(order, np.flatnonzero(np.diff(home[order])) + 1):
        shuffled = rng.permutation(folds)
        left = quota[home[members[0]]][shuffled]
        empty = left > 0
        for done, member in enumerate(members):
            must = len(members) - done <= np.count_nonzero(empty)
            candidates = np.where(empty, left, -np.inf) if must and empty.any() else left
            fold = int(np.argmax(candidates))
            left[fold] -= sizes[member]
            empty[fold] = False
            fold_of[member] = shuffled[fold]
    return fold_of[group]
