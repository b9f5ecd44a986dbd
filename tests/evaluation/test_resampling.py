from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.resampling import Resampled, Resampling, codes
from anymodal.evaluation.statistics import bootstrap_interval, macro_f1_score, mean_score

CLASSES = ("banjo", "flute", "piano")


def world(random, groups, items, concentration=3.0, accuracies=(0.5, 0.7, 0.9)):
    """Answers to `groups` recordings of each class, each of its own difficulty."""
    truth = np.repeat(np.arange(len(CLASSES)), groups * items)
    group = np.repeat(np.arange(len(CLASSES) * groups), items)
    mean = np.repeat(accuracies, groups)
    chance = random.beta(mean * concentration, (1 - mean) * concentration)[group]
    right = random.random(len(truth)) < chance
    other = (truth + random.integers(1, len(CLASSES), len(truth))) % len(CLASSES)
    names = np.array(CLASSES)
    return names[truth], names[np.where(right, truth, other)], group


def slow_replicates(truth, predicted, group, replicates, seed):
    """One weighted score after another; recordings drawn class by class, n − 1 of n."""
    random = np.random.default_rng(seed)
    owned = {name: np.unique(group[truth == name]) for name in CLASSES}
    drawn = {
        name: random.integers(len(own), size=(replicates, len(own) - 1))
        for name, own in owned.items()
    }
    scores = []
    for replicate in range(replicates):
        weights = np.zeros(len(truth))
        for name, own in owned.items():
            for place in drawn[name][replicate]:
                weights[group == own[place]] += len(own) / (len(own) - 1)
        scores.append(
            f1_score(
                truth,
                predicted,
                labels=CLASSES,
                average="macro",
                sample_weight=weights,
                zero_division=0,
            )
        )
    return np.array(scores)


def test_intervals_are_those_of_resampling_one_by_one():
    truth, predicted, group = world(np.random.default_rng(0), groups=5, items=3)
    # of one seed, which cannot vary, the seeds may be drawn: the interval is of percentiles
    how = Resampling(replicates=200, seed=7, resample_seeds=True)
    low, high = bootstrap_interval(macro_f1_score(truth, predicted, CLASSES), group, how)
    slow = slow_replicates(truth, predicted, group, 200, seed=7)
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=1e-12)
    assert low < high


def test_several_seeds_share_their_resamples():
    random = np.random.default_rng(1)
    truth, first, group = world(random, groups=4, items=2)
    second = world(random, groups=4, items=2)[1]
    score = macro_f1_score(truth, [first, second], CLASSES)
    replicates = Resampled([score], group, Resampling(replicates=150, seed=3))._replicates()[0]
    slow = sum(slow_replicates(truth, seed, group, 150, seed=3) for seed in (first, second)) / 2
    np.testing.assert_allclose(replicates, slow, atol=1e-12)


def test_bca_agrees_with_scipy():
    values = np.random.default_rng(2).lognormal(sigma=1.0, size=80)
    low, high = bootstrap_interval(mean_score(values), None, Resampling(replicates=40_000))
    peer = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=40_000,
        method="BCa",
        vectorized=True,
        random_state=np.random.default_rng(5),
        batch=2000,
    ).confidence_interval
    width = peer.high - peer.low
    # n − 1 of n are drawn here, so that the interval is half a percent wider
    assert low == pytest.approx(peer.low, abs=0.02 * width)
    assert high == pytest.approx(peer.high, abs=0.02 * width)
    plain = bootstrap_interval(
        mean_score(values), None, Resampling(replicates=40_000, resample_seeds=True)
    )
    assert low - plain.low > 0.03 * width, "skewed values need a correction"


def test_acceleration_is_the_skewness_of_the_mean():
    values = np.random.default_rng(3).exponential(size=30)
    resampled = Resampled([mean_score(values)], None, Resampling())
    away = values - values.mean()
    expected = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    assert resampled._skew(lambda scores: scores[0]) == pytest.approx(expected, rel=1e-9)


def test_the_variance_of_a_stratified_mean_is_not_shrunk():
    random = np.random.default_rng(4)
    values, strata = random.standard_normal(8), np.repeat([0, 1], [3, 5])
    score = replace(mean_score(values), strata=strata)
    replicates = Resampled([score], None, Resampling(replicates=60_000))._replicates()[0]
    expected = sum(
        len(part) ** 2 * part.var(ddof=1) / len(part) for part in (values[:3], values[3:])
    )
    assert replicates.var() == pytest.approx(expected / 64, rel=0.03)
    assert replicates.mean() == pytest.approx(values.mean(), abs=0.01)


def test_copies_within_a_recording_are_no_evidence():
    truth, predicted, group = world(np.random.default_rng(5), groups=6, items=1)
    once = bootstrap_interval(macro_f1_score(truth, predicted, CLASSES), group)
    copied = macro_f1_score(np.repeat(truth, 4), np.repeat(predicted, 4), CLASSES)
    assert bootstrap_interval(copied, np.repeat(group, 4)) == pytest.approx(once, abs=1e-12)
    careless = bootstrap_interval(copied, None)
    assert careless.high - careless.low < 0.6 * (once.high - once.low)
    alone = macro_f1_score(truth, predicted, CLASSES)
    assert bootstrap_interval(alone, None) == bootstrap_interval(alone, group)


def test_resamples_are_the_same_in_blocks(monkeypatch):
    truth, predicted, group = world(np.random.default_rng(6), groups=5, items=2)
    score = macro_f1_score(truth, predicted, CLASSES)
    whole = bootstrap_interval(score, group, Resampling(replicates=4000))
    monkeypatch.setattr("anymodal.evaluation.resampling.BLOCK", 15 * 7)
    blocks = bootstrap_interval(score, group, Resampling(replicates=4000))
    assert blocks == pytest.approx(whole, abs=0.02)


def test_every_resample_has_every_class():
    # two recordings a class, all named rightly: a resample that lost a class would score lower
    truth = np.repeat(CLASSES, 2)
    resampled = Resampled([macro_f1_score(truth, truth, CLASSES)], None, Resampling(replicates=500))
    assert (resampled._replicates() == 1).all()


def test_seeds_widen_the_interval_only_where_they_are_drawn():
    truth = np.repeat(CLASSES, 20)
    wrong = np.roll(truth, 20)
    answers = [truth, truth, wrong, wrong]  # trainings part, recordings do not
    fixed = Resampling(replicates=2000)
    drawn = Resampling(replicates=2000, resample_seeds=True)
    score = macro_f1_score(truth, answers, CLASSES)
    assert bootstrap_interval(score, None, fixed) == (0.5, 0.5)
    assert bootstrap_interval(score, None, drawn) == (0.0, 1.0)
    one_each = macro_f1_score(CLASSES, [CLASSES, CLASSES[::-1]], CLASSES)
    assert bootstrap_interval(one_each, None, fixed) is None
    assert bootstrap_interval(one_each, None, drawn) is not None


@pytest.mark.parametrize("groups", [3, 8])
def test_intervals_hold_the_true_score_about_as_often_as_they_say(groups, monkeypatch):
    monkeypatch.setattr("anymodal.evaluation.resampling.LEVEL", 0.9)
    random = np.random.default_rng(8)
    big = world(random, groups=20_000, items=1)
    true = macro_f1_score(*big[:2], CLASSES).value
    held, tests = 0, 300
    for seed in range(tests):
        truth, predicted, group = world(random, groups, items=3)
        low, high = bootstrap_interval(
            macro_f1_score(truth, predicted, CLASSES), group, Resampling(400, seed)
        )
        held += low <= true <= high
    assert 0.82 < held / tests < 0.96


def test_same_seed_same_interval():
    truth, predicted, group = world(np.random.default_rng(9), groups=4, items=2)
    score = macro_f1_score(truth, predicted, CLASSES)
    first = bootstrap_interval(score, group, Resampling(seed=1, replicates=300))
    assert first == bootstrap_interval(score, group, Resampling(seed=1, replicates=300))
    assert first != bootstrap_interval(score, group, Resampling(seed=2, replicates=300))


@pytest.mark.parametrize("resample_seeds", [False, True])
def test_no_interval_without_recordings_to_exchange(resample_seeds):
    how = Resampling(resample_seeds=resample_seeds)
    nothing = macro_f1_score([], [], CLASSES)
    assert nothing.value == 0
    assert bootstrap_interval(nothing, [], how) is None
    truth = ["flute"] * 4
    score = macro_f1_score(truth, ["flute", "piano", "flute", "flute"], CLASSES)
    assert bootstrap_interval(score, ["take"] * 4, how) is None
    one_each = macro_f1_score(CLASSES, CLASSES, CLASSES)
    assert bootstrap_interval(one_each, None, how) is None
    assert bootstrap_interval(mean_score([np.nan, np.nan]), None, how) is None


def test_one_class():
    score = macro_f1_score(["piano"] * 6, ["piano"] * 6, ["piano"])
    assert bootstrap_interval(score, None) == (1.0, 1.0)


def test_a_group_of_several_classes_stands_with_the_one_it_has_most_of():
    truth = ["banjo", "piano", "piano", "banjo", "flute"]
    resampled = Resampled(
        [macro_f1_score(truth, truth, CLASSES)], ["x", "x", "x", "y", "z"], Resampling()
    )
    assert resampled.strata.tolist() == [2, 0, 1]
    assert resampled.groups == 3


def test_bad_settings_are_refused():
    with pytest.raises(AnymodalError, match="replicates"):
        Resampling(replicates=0)
    score = macro_f1_score(CLASSES, CLASSES, CLASSES)
    with pytest.raises(AnymodalError, match="2 groups for 3"):
        bootstrap_interval(score, ["a", "b"])


@pytest.mark.parametrize("missing", [None, np.nan])
def test_items_without_a_group_are_refused(missing):
    with pytest.raises(AnymodalError, match="no group"):
        codes(["a", missing], 2)


def test_equal_names_share_a_code():
    assert codes(["b", "a", "b"], 3).tolist() == [0, 1, 0]
