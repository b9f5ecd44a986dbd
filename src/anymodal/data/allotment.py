"""Kernels of the division: shares as whole numbers, orders that spread, hands of like size."""

from __future__ import annotations

import heapq

import numpy as np
import pandas as pd

from anymodal.errors import AnymodalError


def apportion(total: int, shares: np.ndarray, least: int = 0) -> np.ndarray:
    """`total` in whole parts as near to `shares` as can be, none below `least`.

    Largest remainders; what a part lacks to `least` is taken from the largest one. Shares sum to
    one. Fewer than `least` for each part is an `AnymodalError`.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if total < least * len(shares):
        raise AnymodalError(f"{total} cannot be divided into {len(shares)} parts of {least}")
    ideal = total * shares
    parts = np.floor(ideal + 1e-9).astype(np.int64)
    order = np.argsort(-(ideal - parts), kind="stable")
    parts[order[: total - parts.sum()]] += 1
    while parts.min() < least:
        parts[parts.argmax()] -= 1
        parts[parts.argmin()] += 1
    return parts


def spread_order(stratum: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank (n,) of every group within its stratum, random, with the sources spread evenly.

    Any stretch of consecutive ranks holds the stratum's sources in proportion, as far as whole
    groups allow: the groups of a source stand in random order at equal distances, from a random
    offset. `stratum` and `source` are codes (n,).
    """
    table = pd.DataFrame({"stratum": stratum, "source": source, "luck": rng.random(len(stratum))})
    cell = table.groupby(["stratum", "source"], sort=True)
    offset = rng.random(cell.ngroups)[cell.ngroup().to_numpy()]
    turn = cell["luck"].rank(method="first").to_numpy() - 1
    table["position"] = (turn + offset) / cell["luck"].transform("size").to_numpy()
    order = table.sort_values(["stratum", "position", "luck"], kind="stable").index.to_numpy()
    rank = np.empty(len(table), dtype=np.int64)
    rank[order] = table.loc[order].groupby("stratum").cumcount().to_numpy()
    return rank


def deal(sizes: np.ndarray, shares: np.ndarray, count: int) -> np.ndarray:
    """Hands for groups of unequal size: part (n,) of every group, −1 where it is not dealt.

    The `count` largest groups are dealt, largest first, each to the part that is filled least
    for its share (longest processing time first): the way to give every part many rows where
    there are hardly enough groups. Equal sizes keep their order.
    """
    parts = np.full(len(sizes), -1, dtype=np.int64)
    filled = [(0.0, -share, part) for part, share in enumerate(shares.tolist())]
    heapq.heapify(filled)
    for group in np.argsort(-sizes, kind="stable")[:count]:
        level, share, part = heapq.heappop(filled)
        parts[group] = part
        heapq.heappush(filled, (level + float(sizes[group]) / -share, share, part))
    return parts
