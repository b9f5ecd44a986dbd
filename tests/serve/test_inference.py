"""Batches of what is waiting."""

import threading

import pytest

from anymodal.serve.inference import Inference


@pytest.fixture
def held():
    """An inference thread whose first batch waits for `gate`; batches are noted."""
    gate, batches = threading.Event(), []

    def double(payloads):
        batches.append(list(payloads))
        assert gate.wait(10)
        if "bad" in payloads:
            raise ValueError("bad")
        return [2 * payload for payload in payloads]

    inference = Inference(4)
    yield inference, gate, batches, double
    gate.set()
    inference.stop()


def submitted(inference, gate, batches, double, *payloads):
    """Futures of payloads that were submitted while a first batch ran."""
    first = inference.submit(double, 1)
    while not batches:
        pass
    futures = [inference.submit(double, *payload) for payload in payloads]
    gate.set()
    assert first.result(10) == 2
    return futures


@pytest.mark.parametrize(
    ("payloads", "results", "batches"),
    [
        ([(5,), (6,), (7,)], [10, 12, 14], [[5, 6, 7]]),
        # with weights: the heaviest runs alone
        ([(1, 3), (2, 2), (3, 1), (4, 9), (5, 1)], [2, 4, 6, 8, 10], [[1, 3], [2, 5], [4]]),
    ],
)
def test_a_batch_is_what_is_waiting(held, payloads, results, batches):
    assert [future.result(10) for future in submitted(*held, *payloads)] == results
    assert held[2] == [[1], *batches]


def test_functions_are_not_mixed(held):
    inference, gate, batches, double = held
    futures = [inference.submit(work, n) for n, work in enumerate((double, list, double, double))]
    gate.set()
    assert [future.result(10) for future in futures] == [0, 1, 4, 6]
    assert [n for batch in batches for n in batch] == [0, 2, 3]


def test_one_that_fails_fails_alone(held):
    good, bad, other = submitted(*held, (2,), ("bad",), (4,))
    assert (good.result(10), other.result(10)) == (4, 8)
    with pytest.raises(ValueError, match="bad"):
        bad.result(10)


def test_cancelled_ones_are_not_run(held):
    inference, gate, batches, double = held
    inference.submit(double, 1)
    while not batches:
        pass
    cancelled, wanted = inference.submit(double, 2), inference.submit(double, 3)
    assert cancelled.cancel()
    gate.set()
    assert wanted.result(10) == 6
    assert batches == [[1], [3]]


def test_results_must_be_as_many_as_payloads(held):
    with pytest.raises(RuntimeError, match="0 results for 1"):
        held[0].submit(lambda payloads: [], 1).result(10)


def test_stopping_answers_what_waits_and_accepts_nothing_new(held):
    inference, gate, _, double = held
    futures = [inference.submit(double, n) for n in range(6)]
    threading.Timer(0.1, gate.set).start()
    inference.stop()
    assert [future.result(0) for future in futures] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(RuntimeError, match="shutdown"):
        inference.submit(double, 1)
