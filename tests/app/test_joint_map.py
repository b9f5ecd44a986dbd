import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from anymodal.app.joint_map import JointMap, anchor, drawn_rows


def vectors(rows=40, dim=7, seed=0):
    table = np.random.default_rng(seed).standard_normal((rows, dim)) * np.arange(1, dim + 1)
    return table.astype(np.float32)


def test_it_is_the_plane_that_scikit_learn_finds():
    table = vectors()
    own, other = JointMap.fit(table), PCA(2, svd_solver="full").fit(table.astype(float))
    assert own.shares == pytest.approx(other.explained_variance_ratio_)
    signs = np.sign((own.axes * other.components_).sum(axis=1))
    assert np.allclose(own.axes, other.components_ * signs[:, None])
    assert np.allclose(own.place(table), other.transform(table.astype(float)) * signs, atol=1e-6)


def test_the_same_vectors_give_the_same_map_whatever_their_order():
    table = vectors()
    one, two = JointMap.fit(table), JointMap.fit(table[::-1])
    assert np.allclose(one.axes, two.axes)
    assert (one.axes[np.arange(2), np.abs(one.axes).argmax(axis=1)] > 0).all()


def test_a_new_item_moves_nothing_and_is_placed_linearly():
    table = vectors()
    found = JointMap.fit(table)
    new = np.stack([table[3], table[5], (table[3] + table[5]) / 2])
    a, b, between = found.place(new)
    assert np.allclose(a, found.place(table)[3])
    assert np.allclose(between, (a + b) / 2)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_without_variance_all_lies_in_the_middle(rows):
    found = JointMap.fit(np.full((rows, 4), 0.5, np.float32))
    assert found.shares == (0.0, 0.0)
    assert np.array_equal(found.place(np.ones((3, 4))), np.zeros((3, 2)))


def test_vectors_on_a_line_have_one_direction():
    found = JointMap.fit(np.outer(np.arange(5.0), [3.0, 4.0, 0.0]))
    assert found.shares == pytest.approx((1.0, 0.0))
    assert np.allclose(found.axes, [[0.6, 0.8, 0.0], [0, 0, 0]])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5), st.integers(0, 3))
def test_of_each_group_at_most_so_many_rows_are_drawn(groups, most, seed):
    groups = np.array(groups, int)
    drawn = drawn_rows(groups, most, seed)
    assert (np.diff(drawn) > 0).all()
    for group in range(4):
        assert (groups[drawn] == group).sum() == min(most, (groups == group).sum())


def test_a_name_stands_on_the_cloud():
    parts = np.array([[0.0, 0], [0, 1], [0, 2], [10, 0], [10, 1]])
    assert anchor(parts).tolist() in parts.tolist()
    assert anchor(parts[:1]).tolist() == [0, 0]
