"""Dealing sources and groups to folds: against all divisions, by hand, and by property."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anymodal.evaluation import folds as module
from anymodal.evaluation.folds import assign_groups, assign_sources, untrainable


def lost_and_uneven(tested, training, dealt):
    """Plain reference: tested rows without training rows outside their fold, or in no fold (−1);
    squares of the folds' other rows."""
    lost, sizes = 0, {}
    for source, fold in enumerate(dealt):
        for name in range(tested.shape[1]):
            rows = int(tested[source, name])
            if fold == -1:
                lost += rows
                continue
            outside = [
                sum(table[s, name] for s in range(len(dealt)) if dealt[s] != fold)
                for table in (tested, *training)
            ]
            if rows and not all(outside):
                lost += rows
            else:
                sizes[fold] = sizes.get(fold, 0) + rows
    return lost, sum(size**2 for size in sizes.values())


counts = arrays(
    np.int64, st.tuples(st.integers(1, 5), st.integers(1, 3)), elements=st.integers(0, 9)
)


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(2, 3), st.randoms())
def test_no_division_loses_fewer_rows_or_is_more_even(tested, folds, random):
    training = np.array([[random.randint(0, 3) for _ in row] for row in tested]).reshape(
        tested.shape
    )
    dealt = assign_sources(tested, [training], folds)
    assert dealt.shape == (len(tested),) and dealt.max(initial=-1) < folds
    assert (dealt[tested.sum(axis=1) == 0] == -1).all()
    there = np.flatnonzero(tested.sum(axis=1))
    best = min(
        (
            lost_and_uneven(tested, [training], labels)
            for division in product(range(min(folds, max(len(there), 1))), repeat=len(there))
            for labels in [label(len(tested), there, division)]
        ),
        default=(0, 0),
    )
    # what a source in no fold leaves to train on can only help the others
    lost, uneven = lost_and_uneven(tested, [training], dealt)
    assert (lost, uneven) <= best or lost < best[0]
    np.testing.assert_array_equal(dealt, assign_sources(tested, [training], folds))


def label(sources, there, division):
    labels = [-2 - source for source in range(sources)]  # alone, in nobody's fold
    for source, fold in zip(there, division, strict=True):
        labels[source] = fold
    return labels


def test_the_class_of_a_single_source_is_not_dealt_and_the_rest_is_even():
    #                 drums piano trumpet
    tested = np.array([[9, 8, 0], [4, 4, 0], [4, 5, 0], [0, 0, 7]])
    dealt = assign_sources(tested, [], 2)
    assert dealt.tolist() == [0, 1, 1, -1]


def test_a_class_that_the_translation_saw_in_one_source_alone_is_not_tested_there():
    tested = np.array([[5, 5], [5, 5]])
    translation = np.array([[3, 3], [0, 3]])
    dealt = assign_sources(tested, [translation], 2)
    assert sorted(dealt) == [0, 1]
    held = np.stack([translation[dealt == fold].sum(axis=0) for fold in range(2)])
    lacking = untrainable(held, translation.sum(axis=0))
    assert lacking[dealt[0]].tolist() == [True, False] and not lacking[dealt[1]].any()


def test_many_sources_are_dealt_nearly_evenly_and_lose_nothing_that_need_not_be():
    random = np.random.default_rng(0)
    tested = random.integers(0, 4, size=(300, 6))
    dealt = assign_sources(tested, [], 5)
    sizes = np.bincount(dealt[dealt >= 0], tested.sum(axis=1)[dealt >= 0])
    assert sizes.max() - sizes.min() <= tested.sum(axis=1).max()
    assert lost_and_uneven(tested, [], dealt)[0] == 0


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(2, 3))
def test_dealing_by_size_is_a_division_and_seldom_worse(tested, folds):
    tables = np.stack([tested, tested])
    dealt = module._by_size(tables, tables.sum(axis=1), folds)
    assert set(dealt) <= set(range(folds))
    best = module._best(tables, tables.sum(axis=1), folds)
    assert lost_and_uneven(tested, [], best) <= lost_and_uneven(tested, [], dealt)


@pytest.mark.parametrize("tested", [np.zeros((0, 3)), np.zeros((2, 3)), np.zeros((0, 0))])
def test_nothing_to_test_deals_nothing(tested):
    assert (assign_sources(tested, [tested], 3) == -1).all()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=25),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_groups_stay_whole_and_every_hand_that_can_gets_one(drawn, hands, seed):
    """`drawn`: stratum and rows of each group."""
    stratum = np.repeat([s for s, _ in drawn], [n for _, n in drawn]).astype(int)
    group = np.repeat(np.arange(len(drawn)), [n for _, n in drawn])
    rows = np.bincount(stratum, minlength=3)
    wanted = np.repeat(rows[:, None] / hands, hands, axis=1)
    dealt = assign_groups(group, stratum, wanted, np.random.default_rng(seed))
    again = assign_groups(group, stratum, wanted, np.random.default_rng(seed))
    np.testing.assert_array_equal(dealt, again)
    assert len(dealt) == len(group) and set(dealt) <= set(range(hands))
    for one in range(len(drawn)):
        assert len(set(dealt[group == one])) == 1
    for kind in range(3):
        groups = {one for one, (s, _) in enumerate(drawn) if s == kind}
        got = {int(hand) for hand in dealt[stratum == kind]}
        assert len(got) == min(hands, len(groups))
        sizes = np.bincount(dealt[stratum == kind], minlength=hands)
        largest = max((drawn[one][1] for one in groups), default=0)
        assert sizes.max() - sizes.min() <= 2 * largest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 9))
def test_single_rows_meet_any_sizes_exactly(hands, seed):
    """Groups of one row each: `hands` in another order, as `size_matched` asks for."""
    wanted = np.bincount(np.array(hands, dtype=int), minlength=4)[None]
    rows = np.arange(len(hands))
    dealt = assign_groups(rows, np.zeros_like(rows), wanted, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.bincount(dealt, minlength=4), wanted[0])


def test_a_small_hand_is_not_passed_over_for_large_groups():
    group = np.repeat(np.arange(3), [6, 5, 1])
    dealt = assign_groups(group, group * 0, np.array([[11.0, 1.0]]), np.random.default_rng(0))
    assert [int(dealt[group == one][0]) for one in range(3)] == [0, 0, 1]
    dealt = assign_groups(
        group[:11], group[:11] * 0, np.array([[10.0, 1.0]]), np.random.default_rng(0)
    )
    assert set(dealt) == {0, 1}


def test_a_group_of_two_strata_goes_by_the_one_it_has_most_of():
    group = np.array([0, 0, 0, 1, 2])
    stratum = np.array([0, 1, 1, 1, 0])
    wanted = np.array([[1.0, 0.0], [0.0, 4.0]])
    dealt = assign_groups(group, stratum, wanted, np.random.default_rng(0))
    assert dealt.tolist() == [1, 1, 1, 1, 0]


def test_luck_decides_who_goes_where():
    rows = np.arange(12)
    wanted = np.array([[6.0, 6.0]])
    found = {
        tuple(assign_groups(rows, rows * 0, wanted, np.random.default_rng(seed)))
        for seed in range(20)
    }
    assert len(found) > 15
