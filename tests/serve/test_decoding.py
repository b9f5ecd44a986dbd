"""Decoder processes: what they decode and send, what they cannot do, and how they are replaced."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import Limits, SegmentedItem, Window, segment
from anymodal.serve.decoder import UndecodableError, decoded_size, send
from anymodal.serve.decoding import DecoderError, DecoderPool, receive
from helpers.encoded import noise_video
from helpers.loopback import noise, picture, small, sound

RATE = 8000


@pytest.fixture(scope="module")
def pool():
    pool = DecoderPool(RATE, small())
    pool.start()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def odd():
    """A pool that does as it is told, and the reasons for which decoders were lost."""
    lost = []
    limits = small(decode_s=0.8)
    pool = DecoderPool(RATE, limits, "helpers.odd_decoders:by_order", lost.append)
    pool.start()
    pool.lost = lost
    yield pool
    pool.close()


def rotated():
    """A photograph on its side, with a title in UTF-16."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274], exif[0x9C9B] = 6, "title".encode("utf-16-le")
    Image.new("RGB", (40, 20), "teal").save(buffer, format="JPEG", exif=exif)
    return buffer.getvalue()


FILES = {
    **{
        name: lambda name=name: picture("teal", (50, 40), name)
        for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM", "ICO")
    },
    **{name: lambda name=name: sound(2.5, 16_000, format=name) for name in ("WAV", "FLAC", "OGG")},
    "MP3": lambda: sound(2.5, 44_100, format="MP3"),
    "EXIF": rotated,
    "MP4": lambda: noise_video("mp4", "mpeg4", "aac"),
    "MKV": lambda: noise_video("matroska", "libx264", "flac"),
    "WEBM": lambda: noise_video("webm", "libvpx-vp9", "libopus"),
    "AVI": lambda: noise_video("avi", "mpeg4", "mp3"),
}


def assert_same(got, expected):
    assert (got.kind, got.seconds) == (expected.kind, expected.seconds)
    assert len(got.windows) == len(expected.windows)
    for one, two in zip(got.windows, expected.windows, strict=True):
        assert (one.start_s, one.seconds) == (two.start_s, two.seconds)
        for modality in ("audio", "image"):
            mine, other = one.of(modality), two.of(modality)
            assert (mine is None) == (other is None)
            if other is not None:
                assert mine.dtype == other.dtype
                assert np.array_equal(mine, other)


@pytest.mark.parametrize("name", FILES)
def test_a_confined_process_finds_what_an_open_one_does(pool, name):
    content = FILES[name]()
    item = pool.decode(content, "the file")
    assert item.item == "the file"
    assert_same(item, segment(content, RATE, Limits(windows=5)))


def test_what_is_no_media_and_what_is_damaged_are_told_apart(pool):
    with pytest.raises(UndecodableError) as caught:
        pool.decode(b"plain text", "notes.jpg")
    assert caught.value.reason == "foreign"
    assert "bytes of media" not in str(caught.value)
    with pytest.raises(UndecodableError) as caught:
        pool.decode(noise()[:9000], "torn.jpg")
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize(
    ("order", "message", "reason"),
    [
        ("hang", "more than 0.8 s to decode", "time"),
        ("spin", "more than 0.8 s to decode", "time"),
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
    assert odd.decode(picture(), "next").kind == "image"
    assert odd.alive == 1


def test_an_unforeseen_error_loses_no_decoder(odd):
    before = len(odd.lost)
    with pytest.raises(UndecodableError, match="cannot be decoded .ZeroDivisionError"):
        odd.decode(b"bug", "it")
    assert len(odd.lost) == before


def test_decoders_can_open_nothing(odd, tmp_path):
    (tmp_path / "there.txt").write_text("secret")
    for order in (f"open {tmp_path}/there.txt", "connect"):
        with pytest.raises(UndecodableError, match="OSError Too many open files"):
            odd.decode(order.encode(), "it")


def test_decoders_do_not_know_the_servers_environment(odd, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    pool = DecoderPool(RATE, small(), "helpers.odd_decoders:by_order")
    pool.start()
    try:
        with pytest.raises(UndecodableError) as caught:
            pool.decode(b"environment", "it")
    finally:
        pool.close()
    assert "PATH" in str(caught.value)
    assert "AWS" not in str(caught.value)


def test_what_a_library_prints_does_not_get_among_the_results(odd):
    assert odd.decode(b"babble", "it").kind == "image"
    assert odd.decode(b"plain", "it").kind == "image"


def test_a_decoder_that_is_killed_while_idle_is_replaced(odd):
    os.kill(odd._all[0]._process.pid, signal.SIGKILL)
    while odd.alive:
        time.sleep(0.01)
    assert odd.decode(b"plain", "it").kind == "image"


def test_more_threads_than_decoders_wait_their_turn(pool):
    found = []
    content = [picture(size=(10 + n, 10)) for n in range(12)]
    threads = [
        threading.Thread(target=lambda one=one: found.append(pool.decode(one, "it")))
        for one in content
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    widths = sorted(one.windows[0].image.shape[1] for one in found)
    assert widths == [10 + n for n in range(12)]


def test_items_that_are_too_large_once_decoded_are_refused():
    pool = DecoderPool(RATE, small(decoded_bytes=10_000))
    pool.start()
    try:
        with pytest.raises(UndecodableError, match="10,000 are allowed"):
            pool.decode(picture(size=(100, 100)), "it")
        assert pool.decode(picture(size=(50, 50)), "it").kind == "image"
    finally:
        pool.close()


@pytest.mark.slow
def test_processor_time_is_bounded():
    script = (
        "from anymodal.serve.decoder import _limit_processor_time as allow\n"
        "allow(0.1)\nwhile True: pass"
    )
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


def test_a_closed_pool_ends_what_it_was_at():
    pool = DecoderPool(RATE, small(decode_s=30.0), "helpers.odd_decoders:by_order")
    pool.start()
    errors = []

    def ask():
        try:
            pool.decode(b"hang", "it")
        except AnymodalError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    pool.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(errors[0], DecoderError)
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


@pytest.mark.parametrize(
    "messages",
    [
        *(
            [json.dumps({"kind": "audio", "seconds": 1, "windows": [WINDOW]} | changes).encode()]
            for changes in (
                {"kind": "smell"},
                {"seconds": -1},
                {"seconds": float("nan")},
                {"seconds": None},
                {"windows": []},
                {"windows": 5},
                {"windows": [{}]},
                {"windows": [WINDOW | {"samples": None}]},
                {"windows": [WINDOW | {"samples": 10**12}]},
                {"windows": [WINDOW | {"samples": -5}]},
                {"windows": [WINDOW | {"pixels": [10**6, 10**6]}]},
                {"windows": [WINDOW | {"pixels": [-1, -1]}]},
                {"windows": [WINDOW | {"pixels": [1]}]},
                {},  # and the process ends
            )
        ),
        [json.dumps({"kind": "audio", "seconds": 1, "windows": [WINDOW]}).encode(), b"short"],
        [json.dumps({"kind": "audio", "seconds": 1, "windows": [WINDOW]}).encode(), b"a" * 5000],
        [b"[" * 100_000],
        [b"[]"],
        [b"no JSON"],
        [bytes((1 << 20) + 1)],
    ],
)
def test_what_a_decoder_cannot_have_sent_is_refused(messages):
    theirs, ours = Pipe()

    def write():
        with theirs:
            for message in messages:
                theirs.send_bytes(message)

    thread = threading.Thread(target=lambda: suppressed(write))
    thread.start()
    with pytest.raises((EOFError, OSError, ValueError)):
        receive(ours, "it", 1000)
    ours.close()
    thread.join()


def suppressed(work):
    with contextlib.suppress(OSError):
        work()
