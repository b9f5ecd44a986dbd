"""Kernels of the division: shares as whole numbers, an order that spreads sources, dealing."""

from __future__ import annotations

import heapq

import numpy as np
import pandas as pd

from anymodal.core.errors import AnymodalError


def apportion(total: int, shares: np.ndarray, least: int = 0) -> np.ndarray:
    """Divide `total` into whole parts as near to `shares`, which sum to 1, as possible.

    By largest remainders; what a part lacks to `least` is taken from the largest one. Raises
    `AnymodalError` where there are fewer than `least` for each part.
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

    The groups of a source stand in random order at equal distances, from a random offset. `stratum`
    and `source` are codes (n,).
    """
    table = pd.DataFrame({"stratum": stratum, "source": source, "draw": rng.random(len(stratum))})
    cell = table.groupby(["stratum", "source"], sort=True)
    offset = rng.random(cell.ngroups)[cell.ngroup().to_numpy()]
    place = cell["draw"].rank(method="first").to_numpy() - 1
    table["position"] = (place + offset) / cell["draw"].transform("size").to_numpy()
    order = table.sort_values(["stratum", "position", "draw"], kind="stable").index.to_numpy()
    rank = np.empty(len(table), dtype=np.int64)
    rank[order] = table.loc[order].groupby("stratum").cumcount().to_numpy()
    return rank


def deal(sizes: np.ndarray, shares: np.ndarray, count: int) -> np.ndarray:
    """Part (n,) of every group, −1 for those beyond the `count` largest.

    Largest first, each to the part that is filled least for its share; equal sizes in order.
    """
    parts = np.full(len(sizes), -1, dtype=np.int64)
    filled = [(0.0, -share, part) for part, share in enumerate(shares.tolist())]
    heapq.heapify(filled)
    for group in np.argsort(-sizes, kind="stable")[:count]:
        level, share, part = heapq.heappop(filled)
        parts[group] = part
        heapq.heappush(filled, (level + float(sizes[group]) / -share, share, part))
    return parts
