"""The exact search against a plain slow one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.retrieval import top_k
from anymodal.search import exact
from anymodal.search.exact import STEPS, search


def rows_of(n, d, seed=0, clusters=None):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d))
    if clusters:
        x = 0.3 * x + random.normal(size=(clusters, d))[np.sort(random.integers(0, clusters, n))]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def slowly(matrix, queries, k):
    """Rows and cosines in steps, by sums without rounding, one pair at a time."""
    answers = []
    for query in np.asarray(queries, dtype=np.float64):
        length = math.sqrt(math.fsum(query**2)) or 1.0
        keys = [
            round(
                math.fsum(a / length * b for a, b in zip(query, row.tolist(), strict=True)) * STEPS
            )
            for row in matrix
        ]
        best = sorted(range(len(matrix)), key=lambda i, keys=keys: (-keys[i], i))[:k]
        answers.append([(i, keys[i]) for i in best])
    return answers


def as_pairs(hits):
    keys = np.rint(hits.cosines.astype(np.float64) * STEPS).astype(int)
    return [
        list(zip(rows, row_keys, strict=True))
        for rows, row_keys in zip(hits.rows.tolist(), keys.tolist(), strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    d=st.integers(1, 9),
    queries=st.integers(0, 5),
    k=st.integers(1, 50),
    copies=st.integers(1, 4),
    block=st.integers(1, 17),
    seed=st.integers(0, 1000),
)
def test_the_same_as_a_plain_search_ties_and_block_borders_included(
    n, d, queries, k, copies, block, seed
):
    random = np.random.default_rng(seed)
    distinct = rows_of(n, d, seed)
    matrix = distinct[random.integers(0, n, n * copies)]  # many rows are equal
    asked = np.concatenate([matrix[:2], random.normal(size=(queries, d)) * 7])
    before = exact._ROWS, exact._QUERIES, exact._RESCORED
    try:
        exact._ROWS, exact._QUERIES, exact._RESCORED = block, 3, 5
        found = search(matrix, asked, k)
    finally:
        exact._ROWS, exact._QUERIES, exact._RESCORED = before
    assert found.rows.shape == (len(asked), min(k, len(matrix)))
    assert as_pairs(found) == slowly(matrix, asked, k)


@pytest.mark.parametrize("clusters", [None, 12])
def test_the_same_as_the_retrieval_score_ranks(clusters):
    # sorted by cluster, so that the first blocks hold none of the best for most queries
    matrix = rows_of(20_000, 32, clusters=clusters)
    queries = np.concatenate([rows_of(30, 32, seed=5), matrix[::700]])
    found = search(matrix, queries, 25)
    np.testing.assert_array_equal(found.rows, top_k(queries, matrix, 25))
    assert (np.diff(found.cosines, axis=1) <= 0).all()


def test_ties_by_the_thousand_come_in_the_order_of_the_rows():
    matrix = np.tile(rows_of(2, 16), (10_000, 1))
    found = search(matrix, matrix[1:2], 7)
    assert found.rows.tolist() == [[1, 3, 5, 7, 9, 11, 13]]
    assert found.cosines.tolist() == [[1.0] * 7]


def test_a_query_of_zeros_and_a_row_of_zeros_are_similar_to_nothing():
    matrix = np.array([[0, 0], [1, 0], [-1, 0]], dtype=np.float32)
    assert search(matrix, [[0, 0]], 3).rows.tolist() == [[0, 1, 2]]
    found = search(matrix, [[5.0, 0]], 9)
    assert found.rows.tolist() == [[1, 0, 2]] and found.cosines.tolist() == [[1, 0, -1]]


def test_queries_of_any_length_and_the_offset():
    matrix = rows_of(50, 4)
    plain = search(matrix, matrix[:3], 5)
    for scale in (1e-200, 1e200):
        found = search(matrix, matrix[:3].astype(np.float64) * scale, 5, first=100)
        np.testing.assert_array_equal(found.rows, plain.rows + 100)


def test_nothing_to_search_and_nothing_asked():
    nothing = np.empty((0, 4), np.float32)
    assert search(nothing, rows_of(3, 4), 5).rows.shape == (3, 0)
    assert search(rows_of(3, 4), nothing, 5).rows.shape == (0, 3)


def test_a_memory_map_is_searched_like_an_array(tmp_path):
    matrix = rows_of(300, 8)
    np.save(tmp_path / "m.npy", matrix)
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r")
    found = search(mapped, matrix[:9], 4)
    np.testing.assert_array_equal(found.rows, search(matrix, matrix[:9], 4).rows)
    assert type(found.rows) is np.ndarray


@pytest.mark.parametrize(
    ("queries", "k", "told"),
    [
        (np.ones((1, 4)), 0, "k must be 1 or more"),
        (np.ones((1, 5)), 1, r"of shape \(queries, 4\), not \(1, 5\)"),
        (np.ones(4), 1, r"of shape \(queries, 4\)"),
        (np.full((1, 4), np.nan), 1, "not finite"),
        ([["a"] * 4], 1, "no matrix of numbers"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(queries, k, told):
    with pytest.raises(AnymodalError, match=told):
        search(rows_of(3, 4), queries, k)
