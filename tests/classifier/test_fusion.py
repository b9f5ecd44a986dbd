"""Fusion: the product rule, its fitted weights, and which rows are pairs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.classifier.calibration import negative_log_likelihood
from anymodal.classifier.fusion import Weights, fit_weights, fuse, pairs_of
from anymodal.core.errors import AnymodalError
from anymodal.evaluation.classification import LabelledFeatures

PLAIN = Weights()


def test_by_hand():
    audio, image = np.array([[0.5, 0.3, 0.2]]), np.array([[0.1, 0.6, 0.3]])
    product = np.array([0.05, 0.18, 0.06])
    assert np.allclose(fuse(audio, image, PLAIN), [product / product.sum()])
    weighted = np.array([0.5**2 * 0.1**0.5, 0.3**2 * 0.6**0.5, 0.2**2 * 0.3**0.5])
    fused = fuse(audio, image, Weights(audio=2, image=0.5))
    assert np.allclose(fused, [weighted / weighted.sum()])
    assert np.allclose(fuse(audio, image, Weights(audio=1, image=0)), audio)
    assert fuse(np.empty((0, 3)), np.empty((0, 3)), PLAIN).shape == (0, 3)
    certain = fuse(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]), PLAIN)
    assert np.allclose(certain, [[0.5, 0.5, 0]], atol=1e-9)


def answers(truth, skill, classes, rng):
    """Calibrated probabilities that are right in a share `skill` of the rows."""
    wrong = (truth + rng.integers(1, classes, len(truth))) % classes
    answer = np.where(rng.random(len(truth)) < skill, truth, wrong)
    table = np.full((len(truth), classes), (1 - skill) / (classes - 1))
    table[np.arange(len(truth)), answer] = skill
    return table


def test_modalities_that_err_independently_count_fully():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 20_000)
    audio, image = (answers(truth, skill, 4, rng) for skill in (0.6, 0.9))
    weights = fit_weights(audio, image, truth)
    assert (weights.audio, weights.image) == pytest.approx((1, 1), abs=0.06)


def test_an_overconfident_modality_counts_less():
    """Audio claims 0.9 and is right in half of the rows; images are as good as they say."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 4000)
    audio = np.where(answers(truth, 0.5, 4, rng) == 0.5, 0.9, 0.1 / 3)
    image = answers(truth, 0.8, 4, rng)
    weights = fit_weights(audio, image, truth)
    # the power that makes 0.9 against 0.1/3 into 0.5 against 0.5/3
    assert weights.audio == pytest.approx(math.log(3) / math.log(27), abs=0.05)
    assert weights.image == pytest.approx(1, abs=0.1)
    others = [(1, 1), (0, 1), (0.2, 1.1), (0.5, 0.9)]
    best, *rest = (
        negative_log_likelihood(fuse(audio, image, w), truth)
        for w in (weights, *(Weights(audio=a, image=i) for a, i in others))
    )
    assert best <= min(rest)


def test_an_uninformative_modality_does_not_count():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 3000)
    noise = rng.dirichlet([1, 1, 1], 3000)
    weights = fit_weights(noise, answers(truth, 0.8, 3, rng), truth)
    assert weights.audio < 0.06 < 0.9 < weights.image
    wrong = answers((truth + 1) % 3, 0.99, 3, rng)
    assert fit_weights(wrong, wrong, truth) == PLAIN, "never both 0"


def test_pairs_that_determine_no_weights():
    truth = np.arange(30) % 3
    sure = np.full((30, 3), 0.2)
    sure[np.arange(30), truth] = 0.6
    assert fit_weights(sure, sure, truth) == PLAIN, "all correct"
    none = np.empty((0, 3))
    assert fit_weights(none, none, np.empty(0, dtype=int)) == PLAIN
    with pytest.raises(AnymodalError, match="equally many"):
        fit_weights(np.ones((2, 3)), np.ones((1, 3)), np.zeros(2, dtype=int))


def labelled(instruments, clips=""):
    rows = len(instruments)
    names = np.array(list(clips or range(rows)), dtype=str)
    return LabelledFeatures(np.zeros((rows, 2)), np.array(list(instruments), dtype=str), names)


def test_pairs_of_a_class_and_of_a_clip():
    audio, image = labelled("bac"), labelled("abbd")
    pairs = pairs_of(audio, image, "class")
    assert list(zip(*pairs, strict=True)) == [(0, 1), (0, 2), (1, 0)]
    for other in (labelled("x"), labelled("")):
        assert [len(rows) for rows in pairs_of(audio, other, "class")] == [0, 0]
    pairs = pairs_of(labelled("aab", "xyz"), labelled("aab", "zwx"), "clip")
    assert (pairs.audio.tolist(), pairs.image.tolist()) == ([0, 2], [2, 0])
    none = pairs_of(labelled(""), image, "clip")
    assert none.audio.dtype == np.intp and len(none.audio) == len(none.image) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3), st.floats(0, 3))
def test_fused_probabilities_are_probabilities(seed, a, b):
    rng = np.random.default_rng(seed)
    audio, image = rng.dirichlet([0.1] * 4, 5), rng.dirichlet([0.1] * 4, 5)
    fused = fuse(audio, image, Weights(audio=a, image=b))
    assert np.allclose(fused.sum(axis=1), 1) and np.isfinite(fused).all()
    assert np.allclose(fused, fuse(image, audio, Weights(audio=b, image=a)))
