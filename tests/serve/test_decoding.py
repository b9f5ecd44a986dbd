"""Decoder processes: what they decode, what they cannot do, and what happens when they are lost."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import Limits, segment
from anymodal.serve.decoding import DecoderError, DecoderPool, UndecodableError
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


@pytest.mark.parametrize("name", FILES)
def test_a_confined_process_finds_what_an_open_one_does(pool, name):
    content = FILES[name]()
    here = segment(content, RATE, Limits(windows=5))
    there = pool.decode(content, "the file")
    assert there.item == "the file"
    assert (there.kind, there.seconds) == (here.kind, here.seconds)
    assert len(there.windows) == len(here.windows)
    for one, two in zip(there.windows, here.windows, strict=True):
        assert (one.start_s, one.seconds) == (two.start_s, two.seconds)
        for modality in ("audio", "image"):
            mine, other = one.of(modality), two.of(modality)
            assert (mine is None) == (other is None)
            if other is not None:
                assert mine.dtype == other.dtype
                assert np.array_equal(mine, other)


def test_what_is_no_media_and_what_is_damaged_are_told_apart(pool):
    with pytest.raises(UndecodableError) as caught:
        pool.decode(b"plain text", "notes.jpg")
    assert caught.value.foreign
    assert "bytes of media" not in str(caught.value)
    with pytest.raises(UndecodableError) as caught:
        pool.decode(noise()[:9000], "torn.jpg")
    assert not caught.value.foreign


@pytest.mark.parametrize(
    ("order", "message", "reason"),
    [
        ("hang", "more than 0.8 s to decode", "time"),
        ("spin", "more than 0.8 s to decode", "time"),
        ("eat", "more than 512 MiB of memory", "memory"),
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


def test_processor_time_is_bounded():
    script = (
        "from anymodal.serve.decoder import _allow_processor_time as allow\n"
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
