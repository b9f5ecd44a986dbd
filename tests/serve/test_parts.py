"""Inference in batches, what goes over the wire, and room for what is decoded."""

import asyncio
import io
import json
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.media.segmentation import SegmentedItem, Window
from anymodal.serve.inference import Inference
from anymodal.serve.service import Room
from anymodal.serve.wire import (
    WireError,
    decoded_size,
    read_answer,
    read_content,
    write_content,
    write_failure,
    write_moments,
)


@pytest.fixture
def held():
    """An inference thread whose first batch waits for `gate`; batches are noted."""
    gate, batches = threading.Event(), []

    def double(payloads):
        batches.append(list(payloads))
        assert gate.wait(10)
        if "bad" in payloads:
            raise ValueError("bad")
        return [2 * one for one in payloads]

    inference = Inference({"double": double, "same": lambda p: list(p), "none": lambda p: []}, 4)
    inference.start()
    yield inference, gate, batches
    gate.set()
    inference.stop()
    assert not inference.alive


def waiting(inference, gate, batches, *tasks):
    """Futures of tasks that came in while a first batch ran."""
    first = inference.submit("double", 1)
    while not batches:
        pass
    futures = [inference.submit(*task) for task in tasks]
    gate.set()
    assert first.result(10) == 2
    return futures


def test_what_came_in_meanwhile_is_one_batch(held):
    futures = waiting(*held, *(("double", n) for n in (5, 6, 7)))
    assert [one.result(10) for one in futures] == [10, 12, 14]
    assert held[2] == [[1], [5, 6, 7]]


def test_batches_hold_no_more_than_they_may(held):
    weights = [("double", n, w) for n, w in ((1, 3), (2, 2), (3, 1), (4, 9), (5, 1))]
    futures = waiting(*held, *weights)
    assert [one.result(10) for one in futures] == [2, 4, 6, 8, 10]
    assert held[2] == [[1], [1, 3], [2, 5], [4]]


def test_tasks_are_not_mixed(held):
    futures = waiting(*held, ("double", 2), ("same", 3), ("double", 4))
    assert [one.result(10) for one in futures] == [4, 3, 8]
    assert held[2] == [[1], [2, 4]]


def test_one_that_fails_fails_alone(held):
    good, bad, other = waiting(*held, ("double", 2), ("double", "bad"), ("double", 4))
    assert (good.result(10), other.result(10)) == (4, 8)
    with pytest.raises(ValueError, match="bad"):
        bad.result(10)


def test_cancelled_ones_are_not_run(held):
    inference, gate, batches = held
    inference.submit("double", 1)
    while not batches:
        pass
    given_up, wanted = inference.submit("double", 2), inference.submit("double", 3)
    assert given_up.cancel()
    gate.set()
    assert wanted.result(10) == 6
    assert batches == [[1], [3]]


def test_results_must_be_as_many_as_payloads(held):
    held[1].set()
    with pytest.raises(RuntimeError, match="0 results for 1"):
        held[0].submit("none", 1).result(10)


def test_stopping_answers_what_waits_and_takes_nothing_new(held):
    inference, gate, _ = held
    futures = [inference.submit("double", n) for n in range(6)]
    threading.Timer(0.1, gate.set).start()
    inference.stop()
    assert [one.result(0) for one in futures] == [0, 2, 4, 6, 8, 10]
    with pytest.raises(RuntimeError, match="stopped"):
        inference.submit("double", 1)


def windows(sounds, pictures, seed):
    rng = np.random.default_rng(seed)
    parts = [Window(float(n), 1.0, rng.random(s).astype(np.float32)) for n, s in enumerate(sounds)]
    parts += [
        Window(0.5, 0.25, None, rng.integers(0, 255, (h, w, 3), dtype=np.uint8))
        for h, w in pictures
    ]
    both = Window(9.0, 1.0, np.ones(3, np.float32), np.zeros((2, 2, 3), np.uint8))
    return SegmentedItem("there", "video", 12.5, (*parts, both))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 50), max_size=4),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4),
)
def test_items_come_over_the_wire_as_they_are(sounds, pictures):
    sent = windows(sounds, pictures, 0)
    pipe = io.BytesIO()
    write_moments(pipe, sent)
    pipe.seek(0)
    got = read_answer(pipe, "here", decoded_size(sent))
    assert not pipe.read()
    assert (got.item, got.kind, got.seconds) == ("here", sent.kind, sent.seconds)
    for one, two in zip(sent.windows, got.windows, strict=True):
        assert (one.start_s, one.seconds) == (two.start_s, two.seconds)
        for modality in ("audio", "image"):
            mine, other = one.of(modality), two.of(modality)
            assert (mine is None) == (other is None)
            if mine is not None:
                assert mine.dtype == other.dtype and np.array_equal(mine, other)


def test_every_half_of_a_message_is_refused():
    pipe = io.BytesIO()
    write_moments(pipe, windows([3], [(2, 2)], 0))
    whole = pipe.getvalue()
    for size in range(len(whole)):
        with pytest.raises(WireError):
            read_answer(io.BytesIO(whole[:size]), "it", 1000)


def header(**changes):
    told = {"kind": "audio", "seconds": 1, "windows": [{"start_s": 0, "seconds": 1}]}
    told["windows"][0] |= {"audio": 1, "image": None}
    text = changes.pop("text", json.dumps(told | changes)).encode()
    return io.BytesIO(struct.pack("<I", len(text)) + text + bytes(64))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "smell"},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": None},
        {"windows": []},
        {"windows": 5},
        {"windows": [{}]},
        {"windows": [{"start_s": 0, "seconds": 1, "audio": None, "image": None}]},
        {"windows": [{"start_s": 0, "seconds": 1, "audio": 10**12, "image": None}]},
        {"windows": [{"start_s": 0, "seconds": 1, "audio": -5, "image": None}]},
        {"windows": [{"start_s": 0, "seconds": 1, "audio": None, "image": [10**6, 10**6]}]},
        {"windows": [{"start_s": 0, "seconds": 1, "audio": None, "image": [-1, -1]}]},
        {"windows": [{"start_s": 0, "seconds": 1, "audio": None, "image": [1]}]},
        {"text": "[" * 100_000},
        {"text": "[]"},
        {"text": "no JSON"},
    ],
)
def test_what_a_decoder_cannot_have_said_is_refused(changes):
    with pytest.raises(WireError):
        read_answer(header(**changes), "it", 1000)


def test_headers_of_any_size_are_not_read():
    with pytest.raises(WireError, match="header of"):
        read_answer(io.BytesIO(b"\xff\xff\xff\xff" + bytes(100)), "it", 1000)


def test_failures_and_contents_come_over_the_wire():
    pipe = io.BytesIO()
    write_failure(pipe, "damaged", "why")
    write_content(pipe, b"content")
    write_content(pipe, b"")
    pipe.write(struct.pack("<Q", 100) + b"half")
    pipe.seek(0)
    assert read_answer(pipe, "it", 0) == ("damaged", "why")
    assert read_content(pipe) == b"content"
    assert read_content(pipe) == b""
    assert read_content(pipe) is None
    assert read_content(io.BytesIO()) is None


def test_room_is_given_in_turn_and_never_exceeded():
    async def play():
        room, order = Room(10), []

        async def take(name, size):
            await room.take(size)
            order.append(name)

        await take("a", 6)
        tasks = []
        for name, size in (("b", 6), ("c", 2), ("huge", 99), ("d", 1)):
            tasks.append(asyncio.create_task(take(name, size)))
            await asyncio.sleep(0)
        assert order == ["a"]  # c would fit, and waits for its turn
        room.give_back(6)
        await asyncio.sleep(0.01)
        assert order == ["a", "b", "c"]
        room.give_back(6)
        await asyncio.sleep(0.01)
        assert order == ["a", "b", "c"]
        room.give_back(2)
        await asyncio.sleep(0.01)
        assert order == ["a", "b", "c", "huge"]  # alone
        tasks[-1].cancel()
        await asyncio.sleep(0.01)
        room.give_back(99)
        await asyncio.wait_for(room.take(10), 1)  # whoever gave up holds nothing
        room.give_back(10)

    asyncio.run(play())
