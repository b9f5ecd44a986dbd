"""Assigning sources and groups to folds: against all divisions, by hand, and by property."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anymodal.evaluation import folds as module
from anymodal.evaluation.folds import assign_groups, assign_sources, untrainable


def lost_and_uneven(tested, training, assigned):
    """Plain reference: tested rows without training rows outside their fold, or in no fold (−1);
    squares of the folds' other rows."""
    lost, sizes = 0, {}
    for source, fold in enumerate(assigned):
        for name in range(tested.shape[1]):
            rows = int(tested[source, name])
            if fold == -1:
                lost += rows
                continue
            outside = [
                sum(table[s, name] for s in range(len(assigned)) if assigned[s] != fold)
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
    assigned = assign_sources(tested, [training], folds)
    assert assigned.shape == (len(tested),) and assigned.max(initial=-1) < folds
    assert (assigned[tested.sum(axis=1) == 0] == -1).all()
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
    lost, uneven = lost_and_uneven(tested, [training], assigned)
    assert (lost, uneven) <= best or lost < best[0]
    np.testing.assert_array_equal(assigned, assign_sources(tested, [training], folds))


def label(sources, there, division):
    labels = [-2 - source for source in range(sources)]  # alone, in nobody's fold
    for source, fold in zip(there, division, strict=True):
        labels[source] = fold
    return labels


def test_the_class_of_a_single_source_is_not_assigned_and_the_rest_is_even():
    #                 drums piano trumpet
    tested = np.array([[9, 8, 0], [4, 4, 0], [4, 5, 0], [0, 0, 7]])
    assigned = assign_sources(tested, [], 2)
    assert assigned.tolist() == [0, 1, 1, -1]


def test_a_class_that_the_translation_saw_in_one_source_alone_is_not_tested_there():
    tested = np.array([[5, 5], [5, 5]])
    translation = np.array([[3, 3], [0, 3]])
    assigned = assign_sources(tested, [translation], 2)
    assert sorted(assigned) == [0, 1]
    held = np.stack([translation[assigned == fold].sum(axis=0) for fold in range(2)])
    lacking = untrainable(held, translation.sum(axis=0))
    assert lacking[assigned[0]].tolist() == [True, False] and not lacking[assigned[1]].any()


def test_many_sources_are_assigned_nearly_evenly_and_lose_nothing_that_need_not_be():
    random = np.random.default_rng(0)
    tested = random.integers(0, 4, size=(300, 6))
    assigned = assign_sources(tested, [], 5)
    sizes = np.bincount(assigned[assigned >= 0], tested.sum(axis=1)[assigned >= 0])
    assert sizes.max() - sizes.min() <= tested.sum(axis=1).max()
    assert lost_and_uneven(tested, [], assigned)[0] == 0


@settings(max_examples=40, deadline=None)
@given(counts, st.integers(2, 3))
def test_assignment_by_size_is_a_division_and_seldom_worse(tested, folds):
    tables = np.stack([tested, tested])
    assigned = module._by_size(tables, tables.sum(axis=1), folds)
    assert set(assigned) <= set(range(folds))
    best = module._best(tables, tables.sum(axis=1), folds)
    assert lost_and_uneven(tested, [], best) <= lost_and_uneven(tested, [], assigned)


@pytest.mark.parametrize("tested", [np.zeros((0, 3)), np.zeros((2, 3)), np.zeros((0, 0))])
def test_nothing_to_test_assigns_nothing(tested):
    assert (assign_sources(tested, [tested], 3) == -1).all()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=25),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_groups_stay_whole_and_every_fold_that_can_gets_one(drawn, folds, seed):
    """`drawn`: stratum and rows of each group."""
    stratum = np.repeat([s for s, _ in drawn], [n for _, n in drawn]).astype(int)
    group = np.repeat(np.arange(len(drawn)), [n for _, n in drawn])
    rows = np.bincount(stratum, minlength=3)
    wanted = np.repeat(rows[:, None] / folds, folds, axis=1)
    assigned = assign_groups(group, stratum, wanted, np.random.default_rng(seed))
    again = assign_groups(group, stratum, wanted, np.random.default_rng(seed))
    np.testing.assert_array_equal(assigned, again)
    assert len(assigned) == len(group) and set(assigned) <= set(range(folds))
    for one in range(len(drawn)):
        assert len(set(assigned[group == one])) == 1
    for kind in range(3):
        groups = {one for one, (s, _) in enumerate(drawn) if s == kind}
        got = {int(fold) for fold in assigned[stratum == kind]}
        assert len(got) == min(folds, len(groups))
        sizes = np.bincount(assigned[stratum == kind], minlength=folds)
        largest = max((drawn[one][1] for one in groups), default=0)
        assert sizes.max() - sizes.min() <= 2 * largest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 9))
def test_single_rows_meet_any_sizes_exactly(folds, seed):
    """Groups of one row each: `folds` in another order, as `size_matched` asks for."""
    wanted = np.bincount(np.array(folds, dtype=int), minlength=4)[None]
    rows = np.arange(len(folds))
    assigned = assign_groups(rows, np.zeros_like(rows), wanted, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.bincount(assigned, minlength=4), wanted[0])


def test_a_small_fold_is_not_passed_over_for_large_groups():
    group = np.repeat(np.arange(3), [6, 5, 1])
    assigned = assign_groups(group, group * 0, np.array([[11.0, 1.0]]), np.random.default_rng(0))
    assert [int(assigned[group == one][0]) for one in range(3)] == [0, 0, 1]
    assigned = assign_groups(
        group[:11], group[:11] * 0, np.array([[10.0, 1.0]]), np.random.default_rng(0)
    )
    assert set(assigned) == {0, 1}


def test_a_group_of_two_strata_goes_by_the_one_it_has_most_of():
    group = np.array([0, 0, 0, 1, 2])
    stratum = np.array([0, 1, 1, 1, 0])
    wanted = np.array([[1.0, 0.0], [0.0, 4.0]])
    assigned = assign_groups(group, stratum, wanted, np.random.default_rng(0))
    assert assigned.tolist() == [1, 1, 1, 1, 0]


def test_the_seed_decides_which_fold_a_group_is_in():
    rows = np.arange(12)
    wanted = np.array([[6.0, 6.0]])
    found = {
        tuple(assign_groups(rows, rows * 0, wanted, np.random.default_rng(seed)))
        for seed in range(20)
    }
    assert len(found) > 15
