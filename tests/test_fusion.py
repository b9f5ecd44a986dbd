"""Fusion: the product rule, weights that find out who is reliable, and what fusion gains."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.calibration import negative_log_likelihood
from anymodal.errors import AnymodalError
from anymodal.fusion import Pairs, Weights, fit_weights, fuse, gain, pairs_of


def test_by_hand():
    sounds, pictures = np.array([[0.5, 0.3, 0.2]]), np.array([[0.1, 0.6, 0.3]])
    product = np.array([0.05, 0.18, 0.06])
    assert np.allclose(fuse(sounds, pictures, Weights()), [product / product.sum()])
    weighed = np.array([0.5**2 * 0.1**0.5, 0.3**2 * 0.6**0.5, 0.2**2 * 0.3**0.5])
    assert np.allclose(fuse(sounds, pictures, Weights(2, 0.5)), [weighed / weighed.sum()])
    assert np.allclose(fuse(sounds, pictures, Weights(1, 0)), sounds)
    assert fuse(np.empty((0, 3)), np.empty((0, 3)), Weights()).shape == (0, 3)


def test_certainty_of_both_that_they_disagree_is_still_an_answer():
    found = fuse(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]), Weights())
    assert np.allclose(found, [[0.5, 0.5, 0]], atol=1e-9)


def answers(truth, skill, classes, chance):
    """Calibrated probabilities of one that is right in a share `skill` of its answers."""
    said = np.where(chance.random(len(truth)) < skill, truth,
                    (truth + chance.integers(1, classes, len(truth))) % classes)  # fmt: skip
    table = np.full((len(truth), classes), (1 - skill) / (classes - 1))
    table[np.arange(len(truth)), said] = skill
    return table


def test_modalities_that_err_independently_count_fully():
    chance = np.random.default_rng(0)
    truth = chance.integers(0, 4, 20_000)
    sounds, pictures = (answers(truth, skill, 4, chance) for skill in (0.6, 0.9))
    assert fit_weights(sounds, pictures, truth) == pytest.approx((1, 1), abs=0.06)


def test_weights_find_out_who_boasts():
    """Sounds claim 0.9 and are right in half of the cases; pictures are as good as they say."""
    chance = np.random.default_rng(1)
    truth = chance.integers(0, 4, 4000)
    boast = answers(truth, 0.5, 4, chance)
    sounds = np.where(boast == 0.5, 0.9, 0.1 / 3)
    pictures = answers(truth, 0.8, 4, chance)
    found = fit_weights(sounds, pictures, truth)
    # the power that makes 0.9 against 0.1/3 into 0.5 against 0.5/3
    assert found.audio == pytest.approx(math.log(3) / math.log(27), abs=0.05)
    assert found.image == pytest.approx(1, abs=0.1)
    fused = fuse(sounds, pictures, found)
    plain = fuse(sounds, pictures, Weights())
    assert negative_log_likelihood(fused, truth) < negative_log_likelihood(plain, truth)
    for other in (Weights(0, 1), Weights(1, 1), Weights(0.2, 1.1), Weights(0.5, 0.9)):
        assert negative_log_likelihood(fused, truth) <= negative_log_likelihood(
            fuse(sounds, pictures, other), truth
        )


def test_one_that_knows_nothing_is_left_out():
    chance = np.random.default_rng(2)
    truth = chance.integers(0, 3, 3000)
    noise = chance.dirichlet([1, 1, 1], 3000)
    found = fit_weights(noise, answers(truth, 0.8, 3, chance), truth)
    assert found.audio < 0.06 < 0.9 < found.image
    wrong = answers((truth + 1) % 3, 0.99, 3, chance)
    assert fit_weights(wrong, wrong, truth) == Weights(), "never neither"


def test_pairs_that_are_all_answered_rightly_tell_no_weights():
    truth = np.arange(30) % 3
    sure = np.full((30, 3), 0.2)
    sure[np.arange(30), truth] = 0.6
    assert fit_weights(sure, sure, truth) == Weights()


def test_no_pairs_no_weights():
    none = np.empty((0, 3))
    assert fit_weights(none, none, np.empty(0, dtype=int)) == Weights(1.0, 1.0)
    with pytest.raises(AnymodalError, match="as many"):
        fit_weights(np.ones((2, 3)), np.ones((1, 3)), np.zeros(2, dtype=int))


def test_pairs_of_the_same_class():
    sounds, pictures = np.array(["b", "a", "c"]), np.array(["a", "b", "b", "d"])
    found = pairs_of(sounds, pictures)
    assert list(zip(found.audio.tolist(), found.image.tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 0),
    ]  # fmt: skip
    assert [len(rows) for rows in pairs_of(sounds, np.array(["x"]))] == [0, 0]
    assert [len(rows) for rows in pairs_of(sounds[:0], pictures)] == [0, 0]


def test_pairs_of_the_same_clip():
    classes = np.array(["a", "a", "b"])
    clips = np.array(["x", "y", "z"]), np.array(["z", "w", "x"])
    found = pairs_of(classes, classes, clips)
    assert (found.audio.tolist(), found.image.tolist()) == ([0, 2], [2, 0])
    empty = pairs_of(classes[:0], classes, (clips[0][:0], clips[1]))
    assert empty.audio.dtype == np.intp and len(empty.audio) == len(empty.image) == 0


def scene(seed=0, sounds=9, pictures=7):
    chance = np.random.default_rng(seed)
    pairs = pairs_of(chance.integers(0, 3, sounds), chance.integers(0, 3, pictures))
    count = len(pairs.audio)
    right = {
        "audio": chance.random(count) < 0.6,
        "image": chance.random(count) < 0.8,
        "both": chance.random(count) < 0.9,
    }
    groups = (
        np.array([f"s{n // 2}" for n in range(sounds)], dtype=object),
        np.array([f"p{n // 2}" for n in range(pictures)], dtype=object),
    )
    return right, pairs, groups


def slow_gain(right, pairs, groups, replicates, seed, filmed):
    """Groups drawn one after another, and every pair looked at anew."""
    chance = np.random.default_rng(seed)
    better = max(("audio", "image"), key=lambda name: right[name].mean())
    names = [sorted(set(one)) for one in groups]
    values = []
    for _ in range(replicates):
        drawn = [[some[n] for n in chance.integers(0, len(some), len(some))] for some in names]
        total = count = 0
        for number, (sound, picture) in enumerate(zip(*pairs, strict=True)):
            weight = drawn[0].count(groups[0][sound])
            if not filmed:
                weight *= drawn[1].count(groups[1][picture])
            total += weight * (int(right["both"][number]) - int(right[better][number]))
            count += weight
        if count:
            values.append(total / count)
    return np.quantile(values, (0.025, 0.975))


@pytest.mark.parametrize("filmed", [False, True])
def test_the_interval_against_a_plain_loop(filmed):
    right, pairs, groups = scene()
    found = gain(right, pairs, groups, replicates=20_000, seed=1, filmed=filmed)
    slow = slow_gain(right, pairs, groups, 3000, 2, filmed)
    assert np.allclose(found.interval, slow, atol=0.03)
    assert found.better == "image" and found.pairs == len(pairs.audio)
    assert found.difference == pytest.approx(right["both"].mean() - right["image"].mean())
    assert (found.audio, found.both) == (right["audio"].mean(), right["both"].mean())
    again = gain(right, pairs, groups, replicates=20_000, seed=1, filmed=filmed)
    assert again == found


def test_blocks_of_resamples_change_nothing_but_the_draw(monkeypatch):
    right, pairs, groups = scene(3, 60, 50)
    whole = gain(right, pairs, groups, replicates=4000, seed=0)
    monkeypatch.setattr("anymodal.fusion.BLOCK", 64)
    parts = gain(right, pairs, groups, replicates=4000, seed=0)
    assert np.allclose(parts.interval, whole.interval, atol=0.01)


def test_other_recordings_would_change_nothing_where_all_agree():
    right, pairs, groups = scene()
    same = dict.fromkeys(right, right["audio"])
    found = gain(same, pairs, groups, replicates=50, seed=0)
    assert found.difference == 0 and found.interval == (0, 0)


def test_nothing_to_gain_without_pairs():
    none = np.empty(0, dtype=bool)
    pairs = Pairs(np.empty(0, dtype=int), np.empty(0, dtype=int))
    found = gain({"audio": none, "image": none, "both": none}, pairs, (none, none),
                 replicates=10, seed=0)  # fmt: skip
    assert found.interval is None and found.pairs == 0 and math.isnan(found.difference)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3), st.floats(0, 3))
def test_fused_probabilities_are_probabilities(seed, audio, image):
    chance = np.random.default_rng(seed)
    sounds, pictures = chance.dirichlet([0.1] * 4, 5), chance.dirichlet([0.1] * 4, 5)
    found = fuse(sounds, pictures, Weights(audio, image))
    assert np.allclose(found.sum(axis=1), 1) and np.isfinite(found).all()
    swapped = fuse(pictures, sounds, Weights(image, audio))
    assert np.allclose(found, swapped)
