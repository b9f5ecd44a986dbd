"""Exact search by cosine in a matrix of unit rows, block by block.

Conventions
-----------
Rows       float32 (n, d) of length 1 (or 0, which is similar to nothing); may be a memory map.
Queries    numbers (q, d) of any length; they are brought to length 1.
Cosine     the product of the float32 values summed in float64 and rounded to steps of 2^-23, the
           resolution of float32. Of rows with equal cosines the earlier comes first.

The answer does not hang on the linear algebra library: its float32 products only tell which rows
cannot be among the best, with its worst rounding error as the margin, and what is left is
multiplied out row by row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anymodal.core.errors import AnymodalError

STEPS = 2**23
"""Cosines are compared in steps of 1 / STEPS."""
_QUERIES = 256
"""Queries worked on at once."""
_ROWS = 8192
"""Rows multiplied at once: with `_QUERIES`, 8 MiB of products."""
_RESCORED = 1 << 15
"""Pairs multiplied out in float64 at once: 64 MiB at 128 dimensions."""


class Hits(NamedTuple):
    """The best rows of every query, best first."""

    rows: np.ndarray
    """int64 (queries, min(k, rows there are)): places in the matrix."""
    cosines: np.ndarray
    """float32, the same shape."""


def unit(vectors: np.ndarray, dim: int) -> np.ndarray:
    """`vectors` (q, dim) as float64 of length 1; rows of zeros stay. Raises `AnymodalError`."""
    try:
        rows = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise AnymodalError(f"queries are no matrix of numbers ({error})") from None
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise AnymodalError(f"queries must be of shape (queries, {dim}), not {rows.shape}")
    if not np.isfinite(rows).all():
        raise AnymodalError("queries hold values that are not finite")
    # scaled before squaring, so that no row overflows or vanishes
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def search(matrix: np.ndarray, vectors: np.ndarray, k: int, first: int = 0) -> Hits:
    """The k rows of `matrix` (n, d) nearest to each of `vectors` (q, d).

    `first` is added to the places: that of the matrix within a larger one. Raises `AnymodalError`
    for queries of another shape, that are not finite, and for k below 1.
    """
    if k < 1:
        raise AnymodalError(f"k must be 1 or more, not {k}")
    matrix = np.asarray(matrix)  # a memory map's own type would be dragged along
    queries = unit(vectors, matrix.shape[1])
    k = min(k, len(matrix))
    rows = np.empty((len(queries), k), dtype=np.int64)
    keys = np.empty((len(queries), k), dtype=np.int64)
    if k:
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            rows[part], keys[part] = _nearest(matrix, queries[part], k)
    return Hits(rows + first, (keys / STEPS).astype(np.float32))


def rank(
    matrix: np.ndarray, queries: np.ndarray, owner: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of given pairs: int64 (queries, k) rows and int64 keys (cosine × STEPS).

    `queries` float64 (q, d) of length 1; pair i is query `owner[i]` with row `rows[i]`. Where a
    query has fewer than k pairs, its last rows are -1.
    """
    keys = _keys(matrix, queries, owner, rows)
    return _best(len(queries), owner, rows, keys, k)


def _nearest(matrix: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    count, dim = queries.shape
    rounded = queries.astype(np.float32)
    # of a sum of d products of float32, however it is ordered, and of the queries' own rounding
    slack = 1.01 * (dim + 4) / STEPS
    rows = np.full((count, k), -1, dtype=np.int64)
    keys = np.full((count, k), np.iinfo(np.int64).min, dtype=np.int64)
    found = 0
    for start in range(0, len(matrix), _ROWS):
        products = rounded @ matrix[start : start + _ROWS].T
        least = keys[:, -1] / STEPS - slack if found >= k else np.full(count, -np.inf)
        near = products >= least[:, None].astype(np.float32)
        crowded = np.flatnonzero(near.sum(axis=1) > 4 * k)
        if crowded.size:
            # no row that this block alone has k better ones than can be an answer
            among = np.partition(products[crowded], -k, axis=1)[:, -k] - np.float32(2 * slack)
            near[crowded] &= products[crowded] >= among[:, None]
        owner, place = np.divmod(np.flatnonzero(near), near.shape[1])
        place += start
        known, depth = np.nonzero(rows >= 0)
        rows, keys = _best(
            count,
            np.concatenate([known, owner]),
            np.concatenate([rows[known, depth], place]),
            np.concatenate([keys[known, depth], _keys(matrix, queries, owner, place)]),
            k,
        )
        found += near.shape[1]
    return rows, keys


def _keys(
    matrix: np.ndarray, queries: np.ndarray, owner: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Cosines of pairs in whole steps, int64."""
    keys = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _RESCORED):
        part = slice(start, start + _RESCORED)
        # numpy adds each row up in one order, wherever it lies, which a matrix product does not
        products = queries[owner[part]] * matrix[rows[part]]
        keys[part] = np.rint(products.sum(axis=1) * STEPS)
    return keys


def _best(
    count: int, owner: np.ndarray, rows: np.ndarray, keys: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((rows, -keys, owner))
    owner = owner[order]
    depth = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = depth < k
    best_rows = np.full((count, k), -1, dtype=np.int64)
    best_keys = np.full((count, k), np.iinfo(np.int64).min, dtype=np.int64)
    best_rows[owner[kept], depth[kept]] = rows[order][kept]
    best_keys[owner[kept], depth[kept]] = keys[order][kept]
    return best_rows, best_keys
