"""Decoder processes: what they decode and send, what they cannot do, and how they are replaced."""

import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import Pipe

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anymodal.media.segmentation import Limits, SegmentedItem, Window, segment
from anymodal.serve.decoder import UndecodableError, decoded_size, send
from anymodal.serve.decoding import SEGMENT, DecoderError, DecoderPool, receive
from helpers.encoded import noise_video
from helpers.loopback import audio, image, noise, small

RATE = 8000
BY_ORDER = "helpers.odd_decoders:by_order"


@contextlib.contextmanager
def running(decode=SEGMENT, on_kill=lambda reason: None, **changes):
    pool = DecoderPool(RATE, small(**changes), decode, on_kill)
    pool.start()
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture(scope="module")
def pool():
    with running() as pool:
        yield pool


@pytest.fixture(scope="module")
def odd():
    """A pool whose decoders do what a file says, and the reasons for which they were lost."""
    lost = []
    with running(BY_ORDER, lost.append, decode_s=0.8) as pool:
        pool.lost = lost
        yield pool


def rotated():
    """A photograph on its side, with a title in UTF-16."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274], exif[0x9C9B] = 6, "title".encode("utf-16-le")
    Image.new("RGB", (40, 20), "teal").save(buffer, format="JPEG", exif=exif)
    return buffer.getvalue()


IMAGES = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM", "ICO")
FILES = {
    **{name: partial(image, "teal", (50, 40), name) for name in IMAGES},
    **{name: partial(audio, 2.5, 16_000, format=name) for name in ("WAV", "FLAC", "OGG", "MP3")},
    "EXIF": rotated,
    "MP4": partial(noise_video, "mp4", "mpeg4", "aac"),
    "MKV": partial(noise_video, "matroska", "libx264", "flac"),
    "WEBM": partial(noise_video, "webm", "libvpx-vp9", "libopus"),
    "AVI": partial(noise_video, "avi", "mpeg4", "mp3"),
}


def assert_same(got, expected):
    assert (got.kind, got.seconds) == (expected.kind, expected.seconds)
    assert len(got.windows) == len(expected.windows)
    for a, b in zip(got.windows, expected.windows, strict=True):
        assert (a.start_s, a.seconds) == (b.start_s, b.seconds)
        for mine, other in ((a.audio, b.audio), (a.image, b.image)):
            assert (mine is None) == (other is None)
            if other is not None:
                np.testing.assert_array_equal(mine, other, strict=True)


@pytest.mark.parametrize("name", FILES)
def test_a_confined_process_finds_what_an_open_one_does(pool, name):
    content = FILES[name]()
    item = pool.decode(content, "the file")
    assert item.item == "the file"
    assert_same(item, segment(content, RATE, Limits(windows=5)))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"plain text", "foreign"), (noise()[:9000], "damaged")]
)
def test_what_is_no_media_and_what_is_damaged_are_distinguished(pool, content, reason):
    with pytest.raises(UndecodableError) as caught:
        pool.decode(content, "torn.jpg")
    assert caught.value.reason == reason and "bytes of media" not in str(caught.value)


@pytest.mark.parametrize(
    ("order", "message", "reason"),
    [
        ("hang", "more than 0.8 s to decode", "time"),
        pytest.param("spin", "more than 0.8 s to decode", "time", marks=pytest.mark.slow),
        ("eat", "more than 512 MiB to decode", "memory"),
        ("crash", "crashes its decoder .SIG(SEGV|BUS)", "crash"),
        ("leave", "crashes its decoder .status 7", "crash"),
    ],
)
def test_a_lost_decoder_is_one_clear_error_and_is_replaced(odd, order, message, reason):
    before = len(odd.lost)
    began = time.perf_counter()
    with pytest.raises(UndecodableError, match=message):
        odd.decode(order.encode(), "it")
    assert time.perf_counter() - began < 10
    assert odd.lost[before:] == [reason]
    assert odd.decode(image(), "next").kind == "image"
    assert odd.alive == 1


def test_an_unforeseen_error_loses_no_decoder_and_decoders_can_open_nothing(odd, tmp_path):
    (tmp_path / "there.txt").write_text("secret")
    before = len(odd.lost)
    for order, message in (
        ("bug", "cannot be decoded .ZeroDivisionError"),
        (f"open {tmp_path}/there.txt", "OSError Too many open files"),
        ("connect", "OSError Too many open files"),
    ):
        with pytest.raises(UndecodableError, match=message):
            odd.decode(order.encode(), "it")
    # what a library prints does not get among the results
    assert odd.decode(b"babble", "it").kind == odd.decode(b"plain", "it").kind == "image"
    assert len(odd.lost) == before


def test_decoders_do_not_know_the_servers_environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with running(BY_ORDER) as pool, pytest.raises(UndecodableError) as caught:
        pool.decode(b"environment", "it")
    assert "PATH" in str(caught.value)
    assert "AWS" not in str(caught.value)


def test_a_decoder_that_is_killed_while_idle_is_replaced(odd):
    os.kill(odd._all[0]._process.pid, signal.SIGKILL)
    while odd.alive:
        time.sleep(0.01)
    assert odd.decode(b"plain", "it").kind == "image"


def test_more_threads_than_decoders_wait_their_turn(pool):
    contents = [image(size=(10 + n, 10)) for n in range(12)]
    with ThreadPoolExecutor(12) as threads:
        items = list(threads.map(lambda content: pool.decode(content, "it"), contents))
    assert [item.windows[0].image.shape[1] for item in items] == [10 + n for n in range(12)]


def test_items_that_are_too_large_once_decoded_are_refused():
    with running(decoded_bytes=10_000) as pool:
        with pytest.raises(UndecodableError, match="10,000 are allowed"):
            pool.decode(image(size=(100, 100)), "it")
        assert pool.decode(image(size=(50, 50)), "it").kind == "image"


@pytest.mark.slow
def test_processor_time_is_bounded():
    script = "import anymodal.serve.decoder as d\nd._limit_processor_time(0.1)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", script], timeout=30)
    assert done.returncode == -signal.SIGXCPU


def test_decoders_import_neither_torch_nor_the_server():
    script = (
        "import sys, anymodal.serve.decoder\n"
        "print({'torch', 'mlflow', 'sklearn', 'pandas', 'fastapi', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_pool_that_cannot_work_says_so_at_its_start(capfd):
    pool = DecoderPool(RATE, small(), "helpers.odd_decoders:nothing_of_the_kind")
    with pytest.raises(DecoderError, match="ends at once"):
        pool.start()
    assert pool.alive == 0
    assert "nothing_of_the_kind" in capfd.readouterr().err


def test_a_closed_pool_ends_what_it_was_decoding():
    with running(BY_ORDER, decode_s=30.0) as pool, ThreadPoolExecutor(1) as threads:
        decoding = threads.submit(pool.decode, b"hang", "it")
        time.sleep(0.3)
        pool.close()
        with pytest.raises(DecoderError):
            decoding.result(10)
        assert pool.alive == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 50), max_size=4),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4),
)
def test_items_are_received_as_they_were_sent(samples, pixels):
    rng = np.random.default_rng(0)
    windows = [Window(float(n), 1, rng.random(s).astype("f4")) for n, s in enumerate(samples)]
    windows += [Window(0.5, 0.25, None, rng.integers(0, 255, (*p, 3), np.uint8)) for p in pixels]
    windows.append(Window(9.0, 1.0, np.ones(3, np.float32), np.zeros((2, 2, 3), np.uint8)))
    sent = SegmentedItem("there", "video", 12.5, tuple(windows))
    theirs, ours = Pipe()
    send(theirs, sent)
    got = receive(ours, "here", decoded_size(sent))
    assert got.item == "here" and not ours.poll()
    assert_same(got, sent)
    send(theirs, UndecodableError("damaged", "why"))
    with pytest.raises(UndecodableError, match="why"):
        receive(ours, "here", 0)
    send(theirs, sent)
    with pytest.raises(ValueError, match="more than"):
        receive(ours, "here", decoded_size(sent) - 1)


WINDOW = {"start_s": 0, "seconds": 1, "samples": 1, "pixels": None}
HEADER = {"kind": "audio", "seconds": 1, "windows": [WINDOW]}
HEADERS = [
    {"kind": "smell"},
    {"seconds": -1},
    {"seconds": float("nan")},
    {"windows": []},
    {"windows": [{}]},
    {"windows": [WINDOW | {"samples": None}]},
    {"windows": [WINDOW | {"samples": 10**12}]},
    {"windows": [WINDOW | {"samples": -5}]},
    {"windows": [WINDOW | {"pixels": [10**6, 10**6]}]},
    {"windows": [WINDOW | {"pixels": [-1, -1]}]},
    {},  # and the process ends
]


@pytest.mark.parametrize(
    "messages",
    [
        *([json.dumps(HEADER | changes).encode()] for changes in HEADERS),
        [json.dumps(HEADER).encode(), b"short"],
        [json.dumps(HEADER).encode(), b"a" * 5000],
        [b"[" * 50_000],
        [b"no JSON"],
    ],
)
def test_what_a_decoder_cannot_have_sent_is_refused(messages):
    theirs, ours = Pipe()
    with theirs:
        for message in messages:
            theirs.send_bytes(message)
    with pytest.raises((EOFError, OSError, ValueError)):
        receive(ours, "it", 1000)


def test_headers_of_any_size_are_not_read():
    theirs, ours = Pipe()
    os.write(theirs.fileno(), struct.pack("!i", (1 << 20) + 1))
    with pytest.raises(OSError):
        receive(ours, "it", 1000)
