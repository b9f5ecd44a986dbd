"""Exact search against a plain slow one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.evaluation.retrieval import top_k
from anymodal.search.nearest import Nearest, sort_hits


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def slowly(matrix, query, k):
    """Rows and cosines to six decimals, one pair at a time."""
    cosines = [
        round(math.fsum(a * b for a, b in zip(query.tolist(), row.tolist(), strict=True)), 6)
        for row in matrix
    ]
    best = sorted(range(len(matrix)), key=lambda row: (-cosines[row], row))[:k]
    return best, [cosines[row] for row in best]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    d=st.integers(1, 9),
    queries=st.integers(0, 30),
    k=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_the_same_as_a_plain_search(n, d, queries, k, seed):
    random = np.random.default_rng(seed)
    matrix, asked = unit(random.normal(size=(n, d))), unit(random.normal(size=(queries, d)))
    hits = Nearest(matrix).search(asked, k)
    assert hits.rows.shape == hits.cosines.shape == (queries, min(k, n))
    for query, rows, cosines in zip(asked, hits.rows, hits.cosines, strict=True):
        expected = slowly(matrix, query, k)[1]
        # a rounding of FAISS's float32 may move a cosine by a step
        np.testing.assert_allclose(cosines, expected, atol=2e-6)
        np.testing.assert_allclose(matrix[rows] @ query, expected, atol=2e-6)
        assert len(set(rows.tolist())) == len(rows)


@pytest.mark.parametrize("clusters", [None, 12])
def test_the_same_as_the_retrieval_score_ranks(clusters):
    random = np.random.default_rng(0)
    x = random.normal(size=(20_000, 32))
    if clusters:
        x = 0.3 * x + random.normal(size=(clusters, 32))[random.integers(0, clusters, len(x))]
    matrix = unit(x)
    queries = np.concatenate([unit(random.normal(size=(30, 32))), matrix[::700]])
    hits = Nearest(matrix).search(queries, 25)
    assert (hits.rows == top_k(queries, matrix, 25)).mean() > 0.999  # but for near ties
    assert (np.diff(hits.cosines, axis=1) <= 0).all()


@pytest.mark.parametrize("queries", [1, 40])
def test_equal_rows_come_in_their_order(queries):
    matrix = np.repeat(unit(np.random.default_rng(0).normal(size=(4, 16))), 5, axis=0)
    hits = Nearest(matrix).search(np.repeat(matrix[5:6], queries, axis=0), 5)
    assert hits.rows.tolist() == [[5, 6, 7, 8, 9]] * queries
    assert hits.cosines.tolist() == [[1.0] * 5] * queries


def test_a_row_of_zeros_is_similar_to_nothing():
    matrix = np.array([[0, 0], [1, 0], [-1, 0]], dtype=np.float32)
    hits = Nearest(matrix).search(matrix[1:2], 9)
    assert hits.rows.tolist() == [[1, 0, 2]] and hits.cosines.tolist() == [[1, 0, -1]]


def test_nothing_to_search_and_nothing_asked():
    nothing, something = np.empty((0, 4), np.float32), np.eye(4, dtype=np.float32)
    assert Nearest(nothing).search(something, 5).rows.shape == (4, 0)
    assert Nearest(something).search(nothing, 5).rows.shape == (0, 4)


def test_cosines_that_differ_by_rounding_alone_are_equal():
    hits = sort_hits(np.array([[1.0000001, 0.99999988, 0.5]]), np.array([[7, 3, 1]]))
    assert hits.rows.tolist() == [[3, 7, 1]] and hits.cosines.tolist() == [[1, 1, 0.5]]
