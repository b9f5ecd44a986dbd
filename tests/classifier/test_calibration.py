"""Calibration against its definition, and on votes of which the true temperature is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anymodal.classifier.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    tempered,
)
from anymodal.core.errors import AnymodalError

NONE = np.empty((0, 3)), np.empty(0, dtype=np.intp)


def drawn(rows, classes, temperature, seed=0):
    """Shares of votes, and truth drawn from what they say once they are tempered."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 0.7), rows)
    truth = [rng.choice(classes, p=p) for p in tempered(shares, temperature, 1e-4)]
    return shares, np.array(truth)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    shares, truth = drawn(6000, 4, temperature)
    fitted = fit_temperature(shares, truth, 1e-4)
    assert fitted == pytest.approx(temperature, rel=0.06)
    before = expected_calibration_error(tempered(shares, temperature * 3, 1e-4), truth)
    after = expected_calibration_error(tempered(shares, fitted, 1e-4), truth)
    assert after < 0.02 < before


def test_no_temperature_is_likelier_than_the_fitted_one():
    shares, truth = drawn(300, 5, 0.6, seed=3)
    temperatures = [fit_temperature(shares, truth, 1e-3), *np.geomspace(0.05, 20, 400)]
    best, *others = (
        negative_log_likelihood(tempered(shares, temperature, 1e-3), truth)
        for temperature in temperatures
    )
    assert best <= min(others) + 1e-7


def test_the_temperature_stays_within_bounds():
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert 15 < fit_temperature(sure, np.array([1, 2, 0, 1]), 0.01) <= 20
    assert fit_temperature(*NONE, 0.01) == 1.0
    assert 0.05 <= fit_temperature(np.ones((4, 1)), np.zeros(4, dtype=int), 0.01) <= 20


def test_without_a_single_error_answers_do_not_become_certain():
    """Of 8 rows all correct, one error in 10 is assumed, spread over the other classes."""
    truth = np.arange(8) % 3
    shares = np.full((8, 3), 0.05)
    shares[np.arange(8), truth] = 0.9
    probabilities = tempered(shares, fit_temperature(shares, truth, 0.01), 0.01)
    assert np.allclose(probabilities[np.arange(8), truth], 0.9, atol=1e-3)
    truth[0] = 1  # a real error needs no assumption
    probabilities = tempered(shares, fit_temperature(shares, truth, 0.01), 0.01)
    assert probabilities.max() == pytest.approx(7 / 8, abs=1e-3)


def test_by_hand():
    shares = np.array([[0.8, 0.2, 0.0]])
    powers = np.array([0.8**2, 0.2**2, 0.1**2])
    assert np.allclose(tempered(shares, 0.5, 0.1), powers / powers.sum())
    assert negative_log_likelihood(shares, np.array([1])) == pytest.approx(-math.log(0.2))
    assert 700 < negative_log_likelihood(shares, np.array([2])) < math.inf


tables = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)),
                elements=st.integers(0, 20).map(float))  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(tables, st.floats(0.05, 20))
def test_no_ranking_changes(votes, temperature):
    votes[:, 0] += 1
    shares = votes / votes.sum(axis=1, keepdims=True)
    probabilities = tempered(shares, temperature, 0.005)
    assert np.allclose(probabilities.sum(axis=1), 1) and (probabilities >= 0).all()
    assert np.array_equal(probabilities.argmax(axis=1), shares.argmax(axis=1))
    more = shares[:, :, None] > shares[:, None, :]
    assert (probabilities[:, :, None] >= probabilities[:, None, :])[more].all()


def test_reliability_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.4, 0.6], [0.35, 0.65], [0, 1.0]])
    truth = np.array([0, 1, 1, 1, 1])
    low, high = reliability(probabilities, truth)
    assert (low.confidence, low.accuracy, low.rows) == (pytest.approx(0.625), 1.0, 2)
    assert high.confidence == pytest.approx((0.95 + 0.91 + 1) / 3)
    assert (high.accuracy, high.rows) == (pytest.approx(2 / 3), 3)
    expected = (2 * 0.375 + 3 * (2.86 - 2) / 3) / 5
    assert expected_calibration_error(probabilities, truth) == pytest.approx(expected)


def slow_error(probabilities, truth, bins):
    total = 0.0
    for number in range(bins):
        rows = []
        for row, true in zip(probabilities, truth, strict=True):
            at = int(max(row) * bins)
            if at == number or (at == bins and number == bins - 1):
                rows.append((max(row), int(np.argmax(row)) == true))
        if rows:
            total += abs(sum(sure for sure, _ in rows) - sum(right for _, right in rows))
    return total / len(truth)


@pytest.mark.parametrize("bins", [1, 3, 10, 15])
def test_the_error_against_a_plain_loop(bins):
    shares, truth = drawn(400, 3, 0.5, seed=bins)
    error = expected_calibration_error(shares, truth, bins)
    assert error == pytest.approx(slow_error(shares, truth, bins), abs=1e-12)
    assert sum(point.rows for point in reliability(shares, truth, bins)) == 400


def test_no_rows_and_rows_that_do_not_match():
    assert reliability(*NONE) == []
    assert math.isnan(expected_calibration_error(*NONE))
    assert math.isnan(negative_log_likelihood(*NONE))
    assert tempered(NONE[0], 2.0, 0.1).shape == (0, 3)
    with pytest.raises(AnymodalError, match=r"\(2, 3\) and 1 true classes"):
        reliability(np.ones((2, 3)), np.zeros(1, dtype=int))
    with pytest.raises(AnymodalError):
        fit_temperature(np.ones(3), np.zeros(3, dtype=int), 0.1)
