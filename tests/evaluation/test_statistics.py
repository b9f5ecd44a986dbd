from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.forests import macro_f1
from anymodal.evaluation.resampling import Resampling
from anymodal.evaluation.statistics import (
    Difference,
    bootstrap_interval,
    holm,
    macro_f1_score,
    mean_score,
    paired_difference,
    zero_shot_ratio,
)

CLASSES = ("banjo", "flute", "piano")
FEW = Resampling(replicates=300)
names = st.sampled_from((*CLASSES, "harp"))


def noisy(random, truth, share):
    """`truth` with about `share` of the answers replaced by any class."""
    return np.where(random.random(len(truth)) < share, random.choice(CLASSES, len(truth)), truth)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(names, names), max_size=25))
def test_scores_are_those_of_classification(answers):
    truth, predicted = [a for a, _ in answers], [b for _, b in answers]
    score = macro_f1_score(truth, predicted, CLASSES)
    assert score.value == pytest.approx(macro_f1(truth, predicted, CLASSES), abs=1e-12)


def test_the_score_of_several_seeds_is_their_mean():
    random = np.random.default_rng(0)
    truth = np.repeat(CLASSES, 5)
    answers = [noisy(random, truth, share) for share in (0.2, 0.5, 0.9)]
    expected = np.mean([macro_f1(truth, one, CLASSES) for one in answers])
    assert macro_f1_score(truth, answers, CLASSES).value == pytest.approx(expected)
    assert macro_f1_score(truth, np.array(answers), CLASSES).value == pytest.approx(expected)


def test_the_mean_leaves_undefined_values_out():
    assert mean_score([0.2, np.nan, 0.6]).value == pytest.approx(0.4)
    assert mean_score([[0.2, np.nan], [0.5, 0.7]]).value == pytest.approx((0.2 + 0.6) / 2)
    low, high = bootstrap_interval(mean_score([0.2, np.nan, 0.6, 0.4, 0.5]), None, FEW)
    assert 0.2 <= low < high <= 0.6


def test_answers_that_do_not_fit_are_refused():
    with pytest.raises(AnymodalError, match="3 test items have 2 answers"):
        macro_f1_score(CLASSES, CLASSES[:2], CLASSES)
    with pytest.raises(AnymodalError, match="3 test items have 3, 1 answers"):
        macro_f1_score(CLASSES, [CLASSES, CLASSES[:1]], CLASSES)
    for classes in ((), ("piano", "piano")):
        with pytest.raises(AnymodalError, match="distinct"):
            macro_f1_score(CLASSES, CLASSES, classes)


def slow_p_value(truth, first, second, groups):
    """Every way to exchange the systems' names, one by one."""
    kinds = sorted(set(groups))
    seeds = range(len(first))

    def parted(exchanged):
        swap = np.isin(groups, [kind for kind, e in zip(kinds, exchanged, strict=True) if e])
        return np.mean(
            [
                macro_f1(truth, np.where(swap, second[s], first[s]), CLASSES)
                - macro_f1(truth, np.where(swap, first[s], second[s]), CLASSES)
                for s in seeds
            ]
        )

    found = abs(parted([False] * len(kinds)))
    every = [abs(parted(e)) >= found - 1e-12 for e in product((False, True), repeat=len(kinds))]
    return np.mean(every)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_the_permutation_test_is_that_of_every_exchange(seed, seeds):
    random = np.random.default_rng(seed)
    truth, groups = random.choice(CLASSES, 12), random.integers(0, 5, 12)
    first, second = (np.array([noisy(random, truth, s) for _ in range(seeds)]) for s in (0.2, 0.7))
    found = paired_difference(truth, first, second, CLASSES, groups, FEW)
    assert found.p_value == pytest.approx(slow_p_value(truth, first, second, groups))
    scores = [macro_f1_score(truth, answers, CLASSES).value for answers in (first, second)]
    assert found.difference == pytest.approx(scores[0] - scores[1])
    back = paired_difference(truth, second, first, CLASSES, groups, FEW)
    assert (back.difference, back.p_value) == pytest.approx((-found.difference, found.p_value))
    assert found.low is None or found.low == pytest.approx(-back.high, abs=1e-9)


def test_random_exchanges_come_near_all_of_them():
    random = np.random.default_rng(1)
    truth = np.repeat(CLASSES, 7)
    first, second = noisy(random, truth, 0.1), noisy(random, truth, 0.9)
    every = paired_difference(truth, first, second, CLASSES, how=FEW, permutations=2**18)
    many = [
        paired_difference(
            truth, first, second, CLASSES, how=Resampling(replicates=1, seed=s), permutations=100
        ).p_value
        for s in range(60)
    ]
    assert np.mean(many) == pytest.approx((every.p_value * 100 + 1) / 101, abs=0.02)
    assert min(many) >= 1 / 101


def test_all_exchanges_are_tried_where_there_are_no_more_than_allowed():
    truth = np.repeat(CLASSES, 2)
    wrong = np.roll(truth, 2)
    # 2 of 2^6 exchanges come as far; the observed order counts among random ones
    whole, drawn = (
        paired_difference(truth, truth, wrong, CLASSES, how=FEW, permutations=count).p_value
        for count in (64, 62)
    )
    assert whole == 2 / 64 and drawn in np.arange(1, 64) / 63
    # groups that both systems answer alike double the exchanges and change none of them
    half = np.where(np.arange(6) < 3, truth, wrong)
    assert paired_difference(truth, truth, half, CLASSES, how=FEW, permutations=8).p_value == 2 / 8


def test_identical_systems():
    random = np.random.default_rng(2)
    truth = np.repeat(CLASSES, 8)
    answers = noisy(random, truth, 0.5)
    found = paired_difference(truth, answers, answers, CLASSES)
    assert found == Difference(0, 0, 0, 1)


def test_a_clear_difference_and_what_grouping_leaves_of_it():
    random = np.random.default_rng(3)
    truth = np.repeat(CLASSES, 40)
    good, poor = noisy(random, truth, 0.1), noisy(random, truth, 0.6)
    alone = paired_difference(truth, good, poor, CLASSES)
    assert alone.low > 0.2
    assert alone.p_value < 0.001
    # the same answers from two recordings a class are less sure: 2^6 exchanges in all
    grouped = paired_difference(truth, good, poor, CLASSES, np.repeat(np.arange(6), 20))
    assert grouped.p_value == 2 / 2**6
    assert grouped.difference == alone.difference


def test_one_group_and_no_items_have_no_interval():
    one = paired_difference(CLASSES, CLASSES, CLASSES[::-1], CLASSES, ["take"] * 3)
    assert (one.low, one.high, one.p_value) == (None, None, 1)
    assert paired_difference([], [], [], CLASSES) == Difference(0, None, None, 1)


def test_chance_differences_are_rarely_called_significant():
    random = np.random.default_rng(4)
    truth, groups = np.repeat(CLASSES, 12), np.repeat(np.arange(18), 2)
    p_values = [
        paired_difference(
            truth,
            noisy(random, truth, 0.4),
            noisy(random, truth, 0.4),
            CLASSES,
            groups,
            Resampling(replicates=1),
            permutations=300,
        ).p_value
        for _ in range(300)
    ]
    assert 0.005 < np.mean(np.array(p_values) <= 0.05) < 0.09
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


def test_systems_of_unlike_seeds_cannot_be_paired():
    with pytest.raises(AnymodalError, match="1 and 2 seeds"):
        paired_difference(CLASSES, CLASSES, [CLASSES, CLASSES], CLASSES)
    with pytest.raises(AnymodalError, match="permutations"):
        paired_difference(CLASSES, CLASSES, CLASSES, CLASSES, permutations=0)


def test_the_share_of_the_best_system():
    random = np.random.default_rng(5)
    truth = np.repeat(CLASSES, 60)
    zero, poor, good = (noisy(random, truth, share) for share in (0.5, 0.8, 0.1))
    found = zero_shot_ratio(truth, zero, {"MMP/all": poor, "SMA/all": good}, CLASSES)
    assert found.best_system == "SMA/all"
    assert found.best == pytest.approx(macro_f1(truth, good, CLASSES))
    assert found.zero_shot == pytest.approx(macro_f1(truth, zero, CLASSES))
    assert found.share == pytest.approx(found.zero_shot / found.best)
    assert 0.5 < found.low < found.share < found.high < 0.95
    # on the same resamples both rise and fall together; apart, the share would be less sure
    both = zero_shot_ratio(truth, zero, {"itself": zero}, CLASSES)
    assert (both.share, both.low, both.high) == (1, 1, 1)


def test_the_share_is_the_ratio_in_each_resample():
    random = np.random.default_rng(6)
    truth = np.repeat(CLASSES, 8)
    zero, best = noisy(random, truth, 0.6), noisy(random, truth, 0.3)
    how = Resampling(replicates=100, seed=4, resample_seeds=True)
    found = zero_shot_ratio(truth, zero, {"best": best}, CLASSES, how=how)
    draws, ratios = np.random.default_rng(4), []
    drawn = [draws.integers(8, size=(100, 7)) + 8 * place for place in range(3)]
    for rows in np.concatenate(drawn, axis=1):
        ratios.append(
            macro_f1(truth[rows], zero[rows], CLASSES) / macro_f1(truth[rows], best[rows], CLASSES)
        )
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(ratios, [0.025, 0.975])), abs=1e-9
    )


def test_no_share_of_nothing():
    wrong = np.roll(CLASSES, 1)
    found = zero_shot_ratio(CLASSES, CLASSES, {"poor": wrong}, CLASSES)
    assert (found.share, found.low, found.high, found.best) == (None, None, None, 0)
    with pytest.raises(AnymodalError, match="no other system"):
        zero_shot_ratio(CLASSES, CLASSES, {}, CLASSES)
    with pytest.raises(AnymodalError, match="equally many seeds"):
        how = Resampling(resample_seeds=True)
        zero_shot_ratio(CLASSES, CLASSES, {"two": [CLASSES, CLASSES]}, CLASSES, how=how)


def test_zero_shot_may_beat_the_others():
    truth = np.repeat(CLASSES, 4)
    half = np.where(np.arange(12) % 2 == 0, truth, np.roll(truth, 4))
    assert zero_shot_ratio(truth, truth, {"half": half}, CLASSES).share == pytest.approx(2)


def slow_holm(p_values):
    adjusted = []
    for p in p_values:
        steps = [(len(p_values) - sum(r < q for r in p_values)) * q for q in p_values if q <= p]
        adjusted.append(min(1.0, max(steps)))
    return adjusted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_the_largest_step_up_to_each(p_values):
    adjusted = holm(p_values)
    assert adjusted == pytest.approx(slow_holm(p_values))
    assert (adjusted >= np.array(p_values)).all() and (adjusted <= 1).all()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []
