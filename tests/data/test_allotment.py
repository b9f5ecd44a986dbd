"""The kernels of the division against plain reference code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.data.allotment import apportion, deal, spread_order

SHARES = np.array([0.45, 0.15, 0.4])


@pytest.mark.parametrize(
    ("total", "shares", "least", "expected"),
    [
        (100, SHARES, 0, [45, 15, 40]),
        (3, SHARES, 1, [1, 1, 1]),
        (5, SHARES, 1, [2, 1, 2]),
        (1, SHARES, 0, [1, 0, 0]),
        (10, np.array([1 / 3] * 3), 0, [4, 3, 3]),
    ],
)
def test_apportion_by_hand(total, shares, least, expected):
    assert apportion(total, shares, least).tolist() == expected
    with pytest.raises(AnymodalError, match="2 cannot be divided into 3"):
        apportion(2, SHARES, least=1)


@settings(max_examples=50, deadline=None)
@given(total=st.integers(0, 5000), weights=st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_apportion_is_within_one_of_the_shares(total, weights):
    shares = np.array(weights) / sum(weights)
    parts = apportion(total, shares)
    assert parts.sum() == total and parts.min() >= 0
    assert np.abs(parts - total * shares).max() < 1 + 1e-6
    if total >= len(weights):
        parts = apportion(total, shares, least=1)
        assert parts.sum() == total and parts.min() >= 1


@settings(max_examples=30, deadline=None)
@given(
    cells=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=60),
    seed=st.integers(0, 99),
)
def test_spread_order_spreads_sources(cells, seed):
    stratum = np.array([cell[0] for cell in cells], dtype=int)
    source = np.array([cell[1] for cell in cells], dtype=int)
    rank = spread_order(stratum, source, np.random.default_rng(seed))
    for number in np.unique(stratum):
        mine = np.flatnonzero(stratum == number)
        assert sorted(rank[mine]) == list(range(len(mine)))
        order = mine[np.argsort(rank[mine])]
        sources = np.unique(source[mine])
        for name in sources:
            share = (source[mine] == name).mean()
            seen = np.cumsum(source[order] == name)
            # every other source may be off by one, and so may this source
            lag = np.abs(seen - share * np.arange(1, len(mine) + 1)).max()
            assert lag <= len(sources) + 1e-6


def slow_deal(sizes, shares, count):
    filled = [0.0] * len(shares)
    parts = [-1] * len(sizes)
    for group in sorted(range(len(sizes)), key=lambda g: (-sizes[g], g))[:count]:
        part = min(range(len(shares)), key=lambda p: (filled[p], -shares[p], p))
        parts[group] = part
        filled[part] += sizes[group] / shares[part]
    return parts


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), max_size=30), count=st.integers(0, 40))
def test_deal_against_a_plain_loop(sizes, count):
    parts = deal(np.array(sizes, dtype=np.int64), SHARES, count)
    assert parts.tolist() == slow_deal(sizes, SHARES.tolist(), count)
