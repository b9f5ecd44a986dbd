from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import confusion_matrix, f1_score

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.forests import macro_f1
from anymodal.evaluation.per_class import class_scores, correlate, label_correlations, label_counts
from anymodal.ontology.instruments import MIDS

CLASSES = ("banjo", "flute", "piano", "voice")
names = st.sampled_from(CLASSES)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, names, names), min_size=1, max_size=20))
def test_scores_are_sklearns(answers):
    truth, *predicted = map(list, zip(*answers, strict=True))
    found = class_scores(truth, predicted, CLASSES)
    expected = [
        f1_score(truth, one, labels=CLASSES, average=None, zero_division=np.nan)
        for one in predicted
    ]
    np.testing.assert_allclose(found.f1, expected)
    tables = sum(confusion_matrix(truth, one, labels=CLASSES) for one in predicted)
    assert np.array_equal(found.confusion, tables)
    macro = np.nan_to_num(found.f1).mean(axis=1)
    assert macro == pytest.approx([macro_f1(truth, one, CLASSES) for one in predicted])


def test_means_skip_seeds_without_an_f1():
    truth = ["banjo", "flute", "flute", "piano"]
    # the first seed alone calls something a voice
    first = ["voice", "flute", "flute", "piano"]
    second = ["banjo", "flute", "piano", "piano"]
    found = class_scores(truth, [first, second], CLASSES)
    flute = (1.0, 2 / 3)
    piano = (1.0, 2 / 3)
    assert found.mean == pytest.approx([0.5, np.mean(flute), np.mean(piano), 0.0])
    assert np.isnan(class_scores(truth, second, CLASSES).mean[3])


def test_no_items_and_strangers():
    found = class_scores([], [], CLASSES)
    assert found.f1.shape == (1, 4) and np.isnan(found.f1).all()
    assert found.confusion.sum() == 0
    assert np.isnan(found.mean).all()
    for truth, predicted in ((["harp"], ["piano"]), (["piano"], [["piano"], ["harp"]])):
        with pytest.raises(AnymodalError, match="'harp' is none"):
            class_scores(truth, predicted, CLASSES)
    with pytest.raises(AnymodalError, match="2 test items have 1 answers"):
        class_scores(["piano", "flute"], ["piano"], CLASSES)


def test_label_counts_count_a_clip_once_for_each_class_that_it_carries():
    (banjo,), (flute,) = MIDS["banjo"], MIDS["flute"]
    kit, drum = MIDS["drums"]
    labels = [[banjo], [banjo, flute], [kit, drum], ["/m/04rlf"], [], [banjo, banjo]]
    instruments = ["banjo", None, "drums", np.nan, "kazoo", "banjo"]
    counts = label_counts(labels, instruments, ("banjo", "flute", "drums", "kazoo", "voice"))
    assert counts.tolist() == [3, 1, 1, 1, 0]
    assert label_counts([], [], CLASSES).tolist() == [0, 0, 0, 0]
    # a class that is not under study does not count
    assert label_counts([[flute]], ["flute"], ("piano",)).tolist() == [0]
    with pytest.raises(AnymodalError, match="1 lists of labels for 2"):
        label_counts([[]], ["banjo", "banjo"], CLASSES)


def slow_p_value(x, y, method):
    measure = {
        "pearson": lambda a, b: np.corrcoef(a, b)[0, 1],
        "spearman": lambda a, b: np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1],
    }[method]
    found = abs(measure(x, y))
    every = [abs(measure(x, np.array(order))) >= found - 1e-9 for order in permutations(y)]
    return np.mean(every)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 5))
@example(4496338, 4)  # no correlation: what is left is rounding
def test_correlations_are_scipys_and_p_values_those_of_every_order(method, seed, n):
    rng = np.random.default_rng(seed)
    x = np.append(rng.integers(0, 4, n - 1), 9)  # ties
    y = rng.random(n)
    found = correlate(x, y, method)
    peer = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[method](x, y)
    assert found.n == n and found.reason is None
    assert found.value == pytest.approx(peer.statistic)
    assert found.p_value == pytest.approx(slow_p_value(x, y, method))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_many_classes_are_permuted_at_random(method):
    rng = np.random.default_rng(0)
    x = rng.exponential(size=18)
    y = 0.5 * x + rng.standard_normal(18)
    found = correlate(x, y, method, resamples=20_000)
    # 18 values that are not far from normal: t and permutation agree
    peer = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[method](x, y)
    assert found.p_value == pytest.approx(peer.pvalue, abs=0.02)
    assert found == correlate(x, y, method, resamples=20_000)
    assert found.p_value != correlate(x, y, method, resamples=20_000, seed=1).p_value
    perfect = correlate(x, 3 * x, method, resamples=999)
    assert perfect.value == pytest.approx(1)
    assert perfect.p_value == 1 / 1000


def test_spearman_sees_order_alone():
    x = np.arange(6.0)
    assert correlate(x, np.exp(x), "spearman").value == pytest.approx(1)
    assert correlate(x, np.exp(x), "pearson").value < 0.95
    assert correlate(x, -np.exp(x), "spearman").value == pytest.approx(-1)
    assert correlate(x, np.exp(x), "spearman").p_value == pytest.approx(2 / 720)


def test_permuted_values_are_rarely_called_correlated():
    rng = np.random.default_rng(1)
    p_values = [
        correlate(rng.exponential(size=10), rng.random(10), "pearson", 200, seed).p_value
        for seed in range(400)
    ]
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.09


def test_what_does_not_vary_has_no_correlation_and_says_why():
    f1 = np.array([0.2, 0.4, 0.9])
    equal = correlate([5, 5, 5], f1)
    assert (equal.value, equal.p_value, equal.n) == (None, None, 3)
    assert equal.reason == "all 3 classes have the same number of clips (5)"
    rounding = [0.1 + 0.2, 0.3, 0.3]
    assert correlate(f1, rounding).reason == "all 3 classes have the same F1 (0.3)"
    two = correlate([1, 2, np.nan, 4], [0.3, np.nan, 0.2, 0.4])
    assert two.n == 2
    assert two.reason == "a correlation needs at least 3 classes with both values, not 2"
    assert correlate([], []).n == 0


def test_classes_without_a_score_are_left_out():
    found = correlate([1, 2, 3, 4, 50], [0.1, 0.5, 0.4, 0.6, np.nan])
    assert found == correlate([1, 2, 3, 4], [0.1, 0.5, 0.4, 0.6])
    assert found.n == 4


def test_each_modality_is_correlated_both_ways():
    counts = {"audio": np.array([3, 8, 20, 90]), "image": np.full(4, 7)}
    found = label_correlations(counts, np.array([0.2, 0.4, 0.5, 0.6]))
    pearson, spearman = found["audio"]
    assert (pearson.method, spearman.method) == ("pearson", "spearman")
    assert spearman.value == pytest.approx(1) and 0.5 < pearson.value < 1
    assert found["image"][0].value is None
    assert "same number of clips (7)" in found["image"][1].reason
    # shares correlate as counts do
    shares = {"audio": counts["audio"] / counts["audio"].sum()}
    again = label_correlations(shares, np.array([0.2, 0.4, 0.5, 0.6]))["audio"][0]
    assert again.value == pytest.approx(pearson.value)


def test_bad_values_are_refused():
    with pytest.raises(AnymodalError, match="do not pair"):
        correlate([1, 2, 3], [1, 2])
