"""Items as windows: every kind that a user may pass, and what its windows hold."""

import io
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media import decoding
from anymodal.media.segmentation import (
    FRAME_SIDE,
    Audio,
    Limits,
    SegmentedItem,
    Window,
    is_blank,
    name_of,
    segment,
    starts,
)
from helpers.encoded import encoded_audio, encoded_image, encoded_video, spectrum_peak, tone

RATE = 16_000


def times(item):
    return [window.start_s for window in item.windows]


def noise(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---------------------------------------------------------------------------------------- images


def test_an_image_is_one_window_in_any_form(tmp_path):
    pixels = noise()
    content = encoded_image(Image.fromarray(pixels))
    path = tmp_path / "odd.name"
    path.write_bytes(content)
    forms = {
        "<bytes>": [content, bytearray(content), memoryview(content)],
        str(path): [path, str(path)],
        "<image>": [Image.fromarray(pixels), Image.open(io.BytesIO(content))],
        "<array>": [pixels],
    }
    for name, items in forms.items():
        for item in items:
            segments = segment(item, RATE)
            assert (segments.item, segments.kind, segments.seconds) == (name, "image", 0.0)
            assert segments.modalities() == ("image",)
            (window,) = segments.windows
            assert (window.start_s, window.seconds, window.audio) == (0.0, 0.0, None)
            assert np.array_equal(window.image, pixels) and window.of("image") is window.image
            assert name_of(item) == name


def test_unusable_pil_images_are_refused(monkeypatch):
    content = encoded_image(Image.fromarray(noise(300, 300)))
    cut = Image.open(io.BytesIO(content[: len(content) // 2]))
    for image, reason in (
        (cut, "can be decoded"),
        (Image.new("RGB", (0, 5)), "none"),
        (Image.new("F", (3, 3)), "floating-point"),
    ):
        with pytest.raises(MediaError, match=f"^<image>: .*{reason}"):
            segment(image, RATE)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(MediaError, match="<image>: 11 × 10 pixels are more than 100"):
        segment(Image.new("RGB", (11, 10)), RATE)


# ----------------------------------------------------------------------------------------- audio


def test_audio_is_cut_into_seconds():
    wave = tone(RATE, 3.2)[:, 0].astype(np.float32)
    item = segment((wave, RATE), RATE)
    assert (item.item, item.kind, item.seconds) == ("<audio>", "audio", pytest.approx(3.2))
    assert item.modalities() == ("audio",) and times(item) == [0, 1, 2]
    for window in item.windows:
        first = round(window.start_s * RATE)
        assert np.array_equal(window.audio, wave[first : first + RATE]) and window.image is None
        assert window.audio.dtype == np.float32 and window.seconds == 1.0
        assert window.audio.base is None, "a view keeps the whole audio in memory"
    assert times(segment(Audio(wave, np.int64(RATE)), RATE)) == [0, 1, 2]
    assert name_of((wave, RATE)) == "<audio>"


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_a_file_and_its_samples_are_the_same_item(rate):
    wave = tone(rate, 2.7, channels=2) * [1.0, 0.4]
    file = segment(encoded_audio(wave, rate, subtype="FLOAT"), RATE)
    array = segment((wave.astype(np.float32), rate), RATE)
    assert times(file) == times(array) == [0, 1, 2]
    for of_file, of_array in zip(file.windows, array.windows, strict=True):
        assert np.abs(of_file.audio - of_array.audio).max() < 1e-5
    assert file.seconds == array.seconds
    assert np.abs(array.windows[0].audio - 0.7 * tone(RATE, 1.0)[:, 0])[200:].max() < 2e-3


@pytest.mark.parametrize(
    ("kind", "full", "middle"),
    [
        (np.int8, 2**7, 0),
        (np.int16, 2**15, 0),
        (np.int32, 2**31, 0),
        (np.int64, 2**63, 0),
        (np.uint8, 2**7, 2**7),
        (np.uint16, 2**15, 2**15),
        (np.float16, 1, 0),
        (np.float64, 1, 0),
    ],
)
def test_samples_of_any_type_have_full_scale_one(kind, full, middle):
    shares = np.array([0.0, 0.5, -0.5, 0.25, -1.0])
    samples = np.array([int(s * full) + middle if full > 1 else s for s in shares], kind)
    (window,) = segment((samples, RATE), RATE).windows
    assert np.allclose(window.audio, shares, atol=1e-6)


def test_channels_are_averaged_and_loud_samples_clipped():
    both = np.array([[0.5, 0.1], [3.0, 3.0], [-9.0, 1.0]])
    for samples, rate, expected in (
        (both, RATE, [0.3, 1.0, -1.0]),
        ((both[:1] * 2**15).astype(np.int16), RATE, [0.3]),
        ([0.25], RATE, [0.25]),
        (np.array([0.5]), 96_000, [0.5]),
    ):
        (window,) = segment((samples, rate), RATE).windows
        assert np.allclose(window.audio, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (np.zeros((4, 4), np.uint8), "audio is given as"),
        (np.zeros((4, 4, 4), np.uint8), "audio is given as"),
        (np.zeros((2, 4, 4, 3), np.uint8), "audio is given as"),
        (np.zeros((0, 4, 3), np.uint8), "audio is given as"),
        (np.zeros((4, 4, 3), np.float32), "audio is given as"),
        ((RATE, np.zeros(9)), "given as"),
        ((np.zeros(9),), "given as"),
        ((np.zeros(9), RATE, 1), "given as"),
        ((np.zeros(9), 16_000.5), "given as"),
        ((np.zeros(9), 10), "1,000 to 1,000,000 Hz, not 10"),
        ((np.zeros(9), True), "1,000 to"),
        ((np.zeros(9), -RATE), "1,000 to"),
        ((np.zeros(0), RATE), "numbers of shape"),
        ((np.zeros((5, 0)), RATE), "numbers of shape"),
        ((np.zeros((2, 3, 4)), RATE), "numbers of shape"),
        ((np.float32(1), RATE), "numbers of shape"),
        ((np.zeros(9, complex), RATE), "complex128"),
        ((np.zeros(9, bool), RATE), "bool"),
        ((["a", "b"], RATE), "numbers of shape"),
        (([[1, 2], [3]], RATE), "no array"),
        ((np.zeros((2, 16_000)), RATE), r"16000 channels: its shape must be \(samples, channels\)"),
        ((np.array([0, np.nan]), RATE), "finite"),
        ((np.array([0, np.inf]), RATE), "finite"),
        ((np.array([0, 1e300]), RATE), "finite"),
        (3, "not int"),
        (None, "not NoneType"),
        ([np.zeros(9)], "not list"),
    ],
)
def test_what_is_no_item_is_refused_in_one_line(item, words):
    with pytest.raises(AnymodalError, match=words) as caught:
        segment(item, RATE)
    assert "\n" not in str(caught.value)


def test_long_audio_stays_bounded(tmp_path, monkeypatch):
    decoded = []
    load = decoding.load_audio

    def counting(*args, **options):
        part = load(*args, **options)
        decoded.append(len(part))
        return part

    monkeypatch.setattr(decoding, "load_audio", counting)
    rate = 1_000
    ramp = (np.arange(600 * rate) / (600 * rate)).astype(np.float32)
    path = tmp_path / "long.wav"
    path.write_bytes(encoded_audio(ramp, rate, subtype="FLOAT"))
    for item, name in ((path, "long.wav"), ((ramp, rate), "<audio>")):
        segments = segment(item, rate, Limits(windows=5))
        assert segments.seconds == 600 and np.allclose(times(segments), np.linspace(0, 599, 5))
        for window in segments.windows:
            assert len(window.audio) == rate
            assert window.audio[0] == pytest.approx(window.start_s / 600, abs=2e-5)
        with pytest.raises(MediaError, match=f"{name}: lasts 600 s, more than the 60 s allowed"):
            segment(item, rate, Limits(max_seconds=60))
    assert decoded == [rate] * 5, "no more is decoded than the windows need"


@pytest.mark.parametrize("wrong", [{"windows": 0}, {"hop_s": 0.0}, {"hop_s": math.nan},
                                   {"max_seconds": 0}, {"max_seconds": math.nan}])  # fmt: skip
def test_limits_that_leave_nothing_are_refused(wrong):
    with pytest.raises(AnymodalError):
        Limits(**wrong)


# ----------------------------------------------------------------------------------- start times


def slow_starts(seconds, hop, most):
    """Milliseconds, one after another."""
    length, step = round(seconds * 1000), round(hop * 1000)
    least = 500 if step >= 1000 else 1000
    starts, at = [0], step
    while length - at >= least:
        starts.append(at)
        at += step
    if len(starts) > most:
        last = max(0, length - 1000)
        starts = [last * n / (most - 1) if most > 1 else 0 for n in range(most)]
    return [at / 1000 for at in starts]


@pytest.mark.parametrize(
    ("seconds", "hop", "expected"),
    [
        (0.2, 1.0, [0]),
        (1.0, 1.0, [0]),
        (1.49, 1.0, [0]),
        (1.5, 1.0, [0, 1]),
        (3.0, 1.0, [0, 1, 2]),
        (2.6, 0.5, [0, 0.5, 1.0, 1.5]),
        (4.6, 2.0, [0, 2, 4]),
        (5.7, 2.0, [0, 2, 4]),
        (1.9, 100.0, [0]),
    ],
)
def test_start_times_by_hand(seconds, hop, expected):
    assert starts(seconds, Limits(hop_s=hop)).tolist() == pytest.approx(expected)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 200_000), st.integers(50, 9_000), st.integers(1, 80))
def test_start_times_are_those_counted_one_by_one(length, step, most):
    fast = starts(length / 1000, Limits(windows=most, hop_s=step / 1000))
    assert fast.tolist() == pytest.approx(slow_starts(length / 1000, step / 1000, most), abs=1e-6)
    assert 1 <= len(fast) <= most and fast[0] == 0
    assert (np.diff(fast) > 0).all() and fast[-1] <= max(0, length / 1000 - 0.5)


# ---------------------------------------------------------------------------------------- videos


def video(image_s, audio_s=0.0):
    """Ten frames a second; frame k is grey of value 5 k."""
    sound = ("aac", tone(RATE, audio_s)[:, 0], RATE) if audio_s else None
    return encoded_video("mp4", audio=sound, frames=round(image_s * 10), rate=10)


def test_a_video_has_both_of_every_second():
    item = segment(video(2.6, 2.6), RATE)
    assert (item.item, item.kind) == ("<bytes>", "video")
    assert item.seconds == pytest.approx(2.6, abs=0.1) and times(item) == [0, 1, 2]
    assert item.modalities() == ("audio", "image")
    for window, frame in zip(item.windows, (5, 15, 23), strict=True):
        assert abs(float(window.image.mean()) - 5 * frame) < 4, "the frame in the middle"
        assert spectrum_peak(window.audio, RATE) == pytest.approx(440, abs=4)
    assert item.windows[-1].seconds == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize(
    ("image_s", "audio_s", "audio", "image"),
    [
        (1.7, 0.0, [False, False], [True, True]),
        (1.4, 3.3, [True, True, True], [True, True, False]),
        (3.4, 1.0, [True, False, False], [True, True, True]),
    ],
)
def test_audio_and_frames_of_different_length(image_s, audio_s, audio, image):
    item = segment(video(image_s, audio_s), RATE)
    assert item.seconds == pytest.approx(max(image_s, audio_s), abs=0.1)
    assert times(item) == list(range(len(audio)))
    assert [window.audio is not None for window in item.windows] == audio
    assert [window.image is not None for window in item.windows] == image
    if not audio_s:
        assert item.modalities() == ("image",)
        assert [w.seconds for w in item.windows] == pytest.approx([1.0, 0.7], abs=0.01)
    if image_s == 1.4:
        assert abs(float(item.windows[1].image.mean()) - 5 * 12) < 4, "the middle of what is left"


@pytest.mark.parametrize("kind", ["avi", "mpegts", "matroska"])
def test_videos_in_other_containers(kind):
    """A transport stream has no index, and one key frame here: seeking cannot find its frames."""
    codec = "libx264" if kind == "mpegts" else "mpeg4"
    item = segment(encoded_video(kind, codec, frames=26), RATE)
    assert times(item) == [0, 1, 2]
    for window, frame in zip(item.windows, (5, 15, 23), strict=True):
        assert abs(float(window.image.mean()) - 5 * frame) < 6


def test_long_videos_get_spread_windows():
    item = segment(video(5.0, 5.0), RATE, Limits(windows=2))
    assert times(item) == pytest.approx([0, item.seconds - 1], abs=1e-6)
    assert all(len(w.audio) == RATE and w.image is not None for w in item.windows)
    with pytest.raises(MediaError, match="lasts 5 s, more than the 2 s"):
        segment(video(5.0), RATE, Limits(max_seconds=2))


def test_large_frames_are_made_smaller(monkeypatch):
    monkeypatch.setattr("anymodal.media.segmentation.FRAME_SIDE", 32)
    (window,) = segment(video(1.0), RATE).windows
    assert window.image.shape == (24, 32, 3) and FRAME_SIDE > 500


def test_files_that_hold_nothing_are_refused_by_name(tmp_path):
    whole = encoded_audio(tone(RATE, 1.0), RATE)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, RATE,
                         2 * RATE, 2, 16, b"data", 0)  # fmt: skip
    for name, content in {
        "empty.wav": b"", "text.jpg": b"no image at all", "no-samples.wav": header,
        "cut.mp4": video(1.0, 1.0)[:500], "cut.wav": whole[:30],
        "cut.png": encoded_image(Image.fromarray(noise(99, 99)))[:3000],
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name):
            segment(tmp_path / name, RATE)
    with pytest.raises(MediaError, match="gone.wav"):
        segment(tmp_path / "gone.wav", RATE)
    with pytest.raises(MediaError, match="bytes of media: is empty"):
        segment(b"", RATE)


def test_audio_that_was_cut_off_counts_as_far_as_it_goes():
    whole = encoded_audio(tone(RATE, 3.0), RATE)
    item = segment(whole[: len(whole) // 2 + 50], RATE)
    assert times(item) == [0, 1] and item.windows[1].seconds == pytest.approx(0.5, abs=0.01)


def test_silence_and_plain_images_are_blank():
    threshold = 10 ** (-60 / 20)
    for level, blank in ((0.0, True), (0.9 * threshold, True), (1.1 * threshold, False)):
        assert is_blank(np.full(100, level, np.float32)) is blank
    assert is_blank(np.zeros(0, np.float32))
    plain = np.full((30, 40, 3), 200, np.uint8)
    assert is_blank(plain) and not is_blank(noise())
    marked = plain.copy()
    marked[:, 20:] = 190
    assert not is_blank(marked)


def test_modalities_are_those_of_any_window():
    audio, image = np.zeros(4, np.float32), noise()
    mixed = SegmentedItem("x", "video", 2.0, (Window(0, 1, audio=audio), Window(1, 1, image=image)))
    assert mixed.modalities() == ("audio", "image")
    assert mixed.windows[0].of("image") is None and mixed.windows[0].of("audio") is audio
