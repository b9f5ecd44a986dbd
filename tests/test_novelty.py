"""Novelty against an explicit projection, and where its threshold lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal import novelty
from anymodal.errors import AnymodalError
from anymodal.novelty import Novelty, fit_novelty


def rows(count, dim=12, inner=3, noise=0.05, seed=0):
    """Embeddings that vary in `inner` directions, and a little in all."""
    basis = np.random.default_rng(99).standard_normal((inner, dim))
    chance = np.random.default_rng(seed)
    table = chance.standard_normal((count, inner)) @ basis + 5
    return (table + noise * chance.standard_normal((count, dim))).astype(np.float32)


def explicit(train, of, dims):
    """The norm of what the projector onto the first eigenvectors of the covariance leaves."""
    mean, scale = train.mean(axis=0, dtype=float), train.std(axis=0, dtype=float)
    standard = (train - mean) / scale
    _, vectors = np.linalg.eigh(standard.T @ standard)
    inner = vectors[:, -dims:]
    residual = np.eye(train.shape[1]) - inner @ inner.T
    return np.array([np.linalg.norm(residual @ ((row - mean) / scale)) for row in of])


def test_scores_against_an_explicit_projection():
    train, other = rows(200), rows(40, noise=1.0, seed=1)
    found = fit_novelty(train, rows(50, seed=2), 0.9, 3, 0)
    assert np.allclose(found.score(other), explicit(train, other, 3), rtol=1e-4, atol=1e-4)
    assert np.allclose(found.components @ found.components.T, np.eye(3), atol=1e-5)
    assert found.score(other[:0]).shape == (0,)


def test_what_is_unlike_the_training_rows_is_novel():
    found = fit_novelty(rows(300), rows(100, seed=1), 0.95, 3, 0)
    assert found.known(rows(200, seed=2)).mean() > 0.85
    chance = np.random.default_rng(3)
    # as far from the middle as the training rows, in other directions
    strange = 5 + chance.standard_normal((200, 12)) * rows(300).std(axis=0)
    assert found.known(strange.astype(np.float32)).mean() < 0.05


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 1.0))
def test_the_threshold_keeps_the_share_that_was_asked_for(count, keep):
    valid = rows(count, noise=0.3, seed=count)
    found = fit_novelty(rows(60), valid, keep, 3, 0)
    kept = int(found.known(valid).sum())
    assert kept >= keep * count - 1e-9
    # and no more than it must, beyond the one that sets the threshold
    assert kept <= np.ceil(keep * (count - 1) + 1e-9) + 1


def test_rounded_training_rows_do_not_make_whole_ones_novel():
    """Packs hold float16: units that hardly vary are constant there, or jump by their rounding."""
    chance = np.random.default_rng(0)
    still = np.tile([7.0, 1000.0, 0.3], (300, 1)) + 1e-4 * chance.standard_normal((300, 3))
    whole = np.hstack([rows(300, noise=0.5), still]).astype(np.float32)
    packed = whole[:250].astype(np.float16).astype(np.float32)
    found = fit_novelty(packed[:200], packed[200:], 0.95, 4, 0)
    assert found.known(whole[200:]).mean() > 0.85
    assert (found.scale > 0).all()


def test_units_that_never_vary_are_no_trouble():
    table = np.hstack([rows(60), np.full((60, 2), 3.0)]).astype(np.float32)
    found = fit_novelty(table, table[:20], 1.0, 3, 0)
    assert found.known(table[:20]).all() and np.isfinite(found.score(table + 1)).all()
    other = table.copy()
    other[:, -1] = 9.0
    assert not found.known(other).any()
    assert fit_novelty(np.full((20, 4), 3.0), table[:, :4], 0.9, 2, 0) is None


def test_few_rows_tell_nothing():
    table = rows(20)
    assert fit_novelty(table[:2], table, 0.95, 3, 0) is None
    assert fit_novelty(table, table[:0], 0.95, 3, 0) is None
    assert fit_novelty(table[:0], table, 0.95, 3, 0) is None
    assert fit_novelty(table[:, :1], table[:, :1], 0.95, 3, 0) is None
    few = fit_novelty(table[:7], table, 0.95, 100, 0)
    assert len(few.components) == 3, "a subspace of all rows would leave nothing outside"
    assert (few.score(table[:7]) > 0).any()
    assert len(fit_novelty(table, table, 0.95, 100, 0).components) == 9


def test_many_rows_are_drawn_from(monkeypatch):
    monkeypatch.setattr(novelty, "MOST_ROWS", 100)
    found = fit_novelty(rows(400), rows(50, seed=1), 0.95, 3, 5)
    again = fit_novelty(rows(400), rows(50, seed=1), 0.95, 3, 5)
    other = fit_novelty(rows(400), rows(50, seed=1), 0.95, 3, 6)
    assert np.array_equal(found.mean, again.mean) and not np.array_equal(found.mean, other.mean)
    assert found.threshold == again.threshold


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.1])
def test_shares_that_are_none_are_refused(keep):
    with pytest.raises(AnymodalError, match="share to keep"):
        fit_novelty(rows(20), rows(5), keep, 3, 0)


def test_what_does_not_fit_is_refused():
    found = fit_novelty(rows(20), rows(5), 0.9, 3, 0)
    for wrong in (np.zeros((2, 5)), np.zeros(12)):
        with pytest.raises(AnymodalError, match=r"\(rows, 12\)"):
            found.score(wrong)
    with pytest.raises(AnymodalError, match="not of the same"):
        Novelty(found.mean, found.scale[:-1], found.components, 1.0)
    same = Novelty.of(found.arrays(), found.threshold)
    assert np.array_equal(same.score(rows(9)), found.score(rows(9)))
