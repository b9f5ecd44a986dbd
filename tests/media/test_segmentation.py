"""Items taken apart: every kind that a user may hand over, and the moments found in it."""

import io
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anymodal import media
from anymodal.answering import taken_apart
from anymodal.errors import AnymodalError, MediaError
from anymodal.items import (
    FRAME_SIDE,
    Limits,
    Moment,
    Moments,
    Sound,
    is_blank,
    name_of,
    starts,
    take_apart,
)
from test_media import encoded_image, encoded_sound, encoded_video, spectrum_peak, tone

RATE = 16_000


def times(found):
    return [one.start_s for one in found.moments]


def picture(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# -------------------------------------------------------------------------------------- pictures


def test_a_picture_is_one_moment_however_it_is_given(tmp_path):
    pixels = picture()
    content = encoded_image(Image.fromarray(pixels))
    (tmp_path / "odd.name").write_bytes(content)
    given = {
        "<bytes>": [content, bytearray(content), memoryview(content)],
        str(tmp_path / "odd.name"): [tmp_path / "odd.name", str(tmp_path / "odd.name")],
        "<picture>": [Image.fromarray(pixels), Image.open(io.BytesIO(content))],
        "<array>": [pixels],
    }
    for name, items in given.items():
        for item in items:
            found = take_apart(item, RATE)
            assert (found.item, found.kind, found.seconds) == (name, "image", 0.0)
            assert found.modalities() == ("image",)
            (moment,) = found.moments
            assert (moment.start_s, moment.seconds, moment.audio) == (0.0, 0.0, None)
            assert np.array_equal(moment.image, pixels) and moment.of("image") is moment.image
            assert name_of(item) == name


def test_pictures_of_any_mode_become_rgb():
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    clear = Image.fromarray(np.dstack([red, np.full((4, 6), 0, np.uint8)]), "RGBA")
    grey = np.full((4, 6, 3), 128, np.uint8)
    for image, expected in (
        (Image.fromarray(red).convert("P", palette=Image.Palette.ADAPTIVE), red),
        (clear, np.full_like(red, 255)),
        (Image.new("L", (6, 4), 128), grey),
        (Image.new("LA", (6, 4), (128, 255)), grey),
        (Image.new("I;16", (6, 4), 128 * 257), grey),
        (Image.new("1", (6, 4), 1), np.full_like(red, 255)),
        (Image.new("CMYK", (6, 4), (0, 255, 255, 0)), red),
    ):
        assert np.array_equal(take_apart(image, RATE).moments[0].image, expected), image.mode


def test_a_picture_is_turned_as_its_exif_says():
    pixels = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    content = encoded_image(Image.fromarray(pixels), exif=exif)
    upright = np.rot90(pixels, -1)
    for item in (content, Image.open(io.BytesIO(content))):
        assert np.array_equal(take_apart(item, RATE).moments[0].image, upright)


def test_pictures_that_cannot_be_had_are_refused_by_name(monkeypatch):
    content = encoded_image(Image.fromarray(picture(300, 300)))
    torn = Image.open(io.BytesIO(content[: len(content) // 2]))
    for image, reason in (
        (torn, "can be decoded"),
        (Image.new("RGB", (0, 5)), "none"),
        (Image.new("F", (3, 3)), "floating-point"),
    ):
        with pytest.raises(MediaError, match=f"^<picture>: .*{reason}"):
            take_apart(image, RATE)
    monkeypatch.setattr(media, "MAX_PIXELS", 100)
    with pytest.raises(MediaError, match="<picture>: 11 × 10 pixels are more than 100"):
        take_apart(Image.new("RGB", (11, 10)), RATE)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros(16_000, np.float32),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array):
    with pytest.raises(AnymodalError, match="a sound is given as"):
        take_apart(array, RATE)


# ---------------------------------------------------------------------------------------- sounds


def test_a_sound_is_cut_into_seconds():
    wave = tone(RATE, 3.2)[:, 0].astype(np.float32)
    found = take_apart((wave, RATE), RATE)
    assert (found.item, found.kind, found.seconds) == ("<sound>", "audio", pytest.approx(3.2))
    assert found.modalities() == ("audio",) and times(found) == [0, 1, 2]
    for one in found.moments:
        first = round(one.start_s * RATE)
        assert np.array_equal(one.audio, wave[first : first + RATE]) and one.image is None
        assert one.audio.dtype == np.float32 and one.seconds == 1.0
        assert one.audio.base is None, "a view keeps the whole sound in memory"
    assert times(take_apart(Sound(wave, np.int64(RATE)), RATE)) == [0, 1, 2]
    assert name_of((wave, RATE)) == "<sound>"


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_sound_is_resampled(rate):
    found = take_apart((tone(rate, 2.0), rate), RATE)
    assert [len(one.audio) for one in found.moments] == [RATE, RATE]
    assert spectrum_peak(found.moments[1].audio, RATE) == pytest.approx(440, abs=2)
    assert np.abs(found.moments[0].audio - tone(RATE, 1.0)[:, 0])[200:].max() < 2e-3


def test_a_file_and_its_samples_are_the_same_item():
    wave = tone(22_050, 2.7, channels=2) * [1.0, 0.4]
    file = take_apart(encoded_sound(wave, 22_050, subtype="FLOAT"), RATE)
    array = take_apart((wave.astype(np.float32), 22_050), RATE)
    assert times(file) == times(array) == [0, 1, 2]
    for one, other in zip(file.moments, array.moments, strict=True):
        assert np.abs(one.audio - other.audio).max() < 1e-5
    assert file.seconds == array.seconds


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
    (moment,) = take_apart((samples, RATE), RATE).moments
    assert np.allclose(moment.audio, shares, atol=1e-6)


def test_channels_are_averaged_and_loud_samples_clipped():
    both = np.array([[0.5, 0.1], [3.0, 3.0], [-9.0, 1.0]])
    (moment,) = take_apart((both, RATE), RATE).moments
    assert np.allclose(moment.audio, [0.3, 1.0, -1.0])
    ints = (both[:1] * 2**15).astype(np.int16)
    assert take_apart((ints, RATE), RATE).moments[0].audio[0] == pytest.approx(0.3, abs=1e-4)
    # lists will do, and one sample is a sound
    assert take_apart(([0.25], RATE), RATE).moments[0].audio.tolist() == [0.25]
    assert take_apart((np.array([0.5]), 96_000), 8_000).moments[0].audio.tolist() == [0.5]


@pytest.mark.parametrize(
    ("item", "words"),
    [
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
def test_what_is_no_item_is_told_in_one_line(item, words):
    with pytest.raises(AnymodalError, match=words) as told:
        take_apart(item, RATE)
    assert "\n" not in str(told.value)


def test_long_sounds_stay_bounded(tmp_path, monkeypatch):
    decoded = []
    load = media.load_audio

    def counting(*args, **options):
        part = load(*args, **options)
        decoded.append(len(part))
        return part

    monkeypatch.setattr(media, "load_audio", counting)
    rate = 1_000
    ramp = (np.arange(600 * rate) / (600 * rate)).astype(np.float32)
    path = tmp_path / "long.wav"
    path.write_bytes(encoded_sound(ramp, rate, subtype="FLOAT"))
    limits = Limits(moments=5)
    for item in (path, (ramp, rate)):
        found = take_apart(item, rate, limits)
        assert found.seconds == 600 and np.allclose(times(found), np.linspace(0, 599, 5))
        for one in found.moments:
            assert len(one.audio) == rate
            assert one.audio[0] == pytest.approx(one.start_s / 600, abs=2e-5)
    assert decoded == [rate] * 5, "no more is decoded than is looked at"
    with pytest.raises(MediaError, match="long.wav: lasts 600 s, more than the 60 s allowed"):
        take_apart(path, rate, Limits(max_seconds=60))
    with pytest.raises(MediaError, match="<sound>: lasts 600 s"):
        take_apart((ramp, rate), rate, Limits(max_seconds=60))


@pytest.mark.parametrize("wrong", [{"moments": 0}, {"hop_s": 0.0}, {"hop_s": math.nan},
                                   {"max_seconds": 0}, {"max_seconds": math.nan}])  # fmt: skip
def test_limits_that_leave_nothing_are_refused(wrong):
    with pytest.raises(AnymodalError):
        Limits(**wrong)


# ------------------------------------------------------------------------------ when moments are


def slow_starts(seconds, hop, most):
    """Milliseconds, one after another."""
    length, step = round(seconds * 1000), round(hop * 1000)
    least = 500 if step >= 1000 else 1000
    found, at = [0], step
    while length - at >= least:
        found.append(at)
        at += step
    if len(found) > most:
        last = max(0, length - 1000)
        found = [last * n / (most - 1) if most > 1 else 0 for n in range(most)]
    return [at / 1000 for at in found]


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
def test_when_moments_start(seconds, hop, expected):
    assert starts(seconds, Limits(hop_s=hop)).tolist() == pytest.approx(expected)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 200_000), st.integers(50, 9_000), st.integers(1, 80))
def test_starts_are_those_counted_one_by_one(length, step, most):
    found = starts(length / 1000, Limits(moments=most, hop_s=step / 1000))
    assert found.tolist() == pytest.approx(slow_starts(length / 1000, step / 1000, most), abs=1e-6)
    assert 1 <= len(found) <= most and found[0] == 0
    assert (np.diff(found) > 0).all() and found[-1] <= max(0, length / 1000 - 0.5)


# ----------------------------------------------------------------------------------------- films


def film(picture_s, sound_s=0.0, kind="mp4", rate=10, hz=440.0):
    """Frame k is grey of value 5 k."""
    sound = ("aac", tone(RATE, sound_s, hz)[:, 0], RATE) if sound_s else None
    return encoded_video(kind, sound=sound, frames=round(picture_s * rate), rate=rate)


def test_a_film_has_both_of_every_second():
    found = take_apart(film(2.6, 2.6), RATE)
    assert (found.item, found.kind) == ("<bytes>", "video")
    assert found.seconds == pytest.approx(2.6, abs=0.1) and times(found) == [0, 1, 2]
    assert found.modalities() == ("audio", "image")
    for one, frame in zip(found.moments, (5, 15, 23), strict=True):
        assert abs(float(one.image.mean()) - 5 * frame) < 4, "the frame in the middle of its second"
        assert spectrum_peak(one.audio, RATE) == pytest.approx(440, abs=4)
    assert found.moments[-1].seconds == pytest.approx(0.6, abs=0.1)


def test_a_film_without_sound_is_its_picture():
    found = take_apart(film(1.7), RATE)
    assert found.modalities() == ("image",) and times(found) == [0, 1]
    assert [one.audio for one in found.moments] == [None, None]
    assert [one.seconds for one in found.moments] == pytest.approx([1.0, 0.7], abs=0.01)


def test_sound_longer_than_the_picture_goes_on_alone():
    found = take_apart(film(1.4, 3.3), RATE)
    assert times(found) == [0, 1, 2] and found.seconds == pytest.approx(3.3, abs=0.1)
    assert [one.image is not None for one in found.moments] == [True, True, False]
    assert all(one.audio is not None for one in found.moments)
    assert abs(float(found.moments[1].image.mean()) - 5 * 12) < 4, "of what is left, the middle"


def test_picture_longer_than_the_sound_goes_on_alone():
    found = take_apart(film(3.4, 1.0), RATE)
    assert times(found) == [0, 1, 2] and found.seconds == pytest.approx(3.4, abs=0.01)
    assert [one.audio is not None for one in found.moments] == [True, False, False]
    assert all(one.image is not None for one in found.moments)


@pytest.mark.parametrize("kind", ["avi", "mpegts", "matroska"])
def test_films_in_other_containers(kind):
    """A transport stream has no index, and one key frame here: seeking cannot find its frames."""
    codec = "libx264" if kind == "mpegts" else "mpeg4"
    found = take_apart(encoded_video(kind, codec, frames=26), RATE)
    assert times(found) == [0, 1, 2]
    for one, frame in zip(found.moments, (5, 15, 23), strict=True):
        assert abs(float(one.image.mean()) - 5 * frame) < 6


def test_long_films_are_looked_at_here_and_there():
    found = take_apart(film(5.0, 5.0), RATE, Limits(moments=2))
    assert times(found) == pytest.approx([0, found.seconds - 1], abs=1e-6)
    assert all(len(one.audio) == RATE and one.image is not None for one in found.moments)
    with pytest.raises(MediaError, match="lasts 5 s, more than the 2 s"):
        take_apart(film(5.0), RATE, Limits(max_seconds=2))


def test_large_frames_are_made_smaller(monkeypatch):
    monkeypatch.setattr("anymodal.items.FRAME_SIDE", 32)
    (moment,) = take_apart(film(1.0), RATE).moments
    assert moment.image.shape == (24, 32, 3) and FRAME_SIDE > 500


def test_a_real_film():
    path = Path(__file__).parents[2] / "shared/data/video/maskvat__drums_gt.mp4"
    if not path.is_file():
        pytest.skip("no ../shared/data")
    found = take_apart(path, RATE)
    assert len(found.moments) == 8 and found.item == str(path)
    assert all(one.audio is not None and one.image is not None for one in found.moments)


def test_files_that_hold_nothing_are_refused_by_name(tmp_path):
    whole = encoded_sound(tone(RATE, 1.0), RATE)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, RATE,
                         2 * RATE, 2, 16, b"data", 0)  # fmt: skip
    for name, content in {
        "empty.wav": b"", "text.jpg": b"no picture at all", "no-samples.wav": header,
        "torn.mp4": film(1.0, 1.0)[:500], "torn.wav": whole[:30],
        "torn.png": encoded_image(Image.fromarray(picture(99, 99)))[:3000],
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name):
            take_apart(tmp_path / name, RATE)
    with pytest.raises(MediaError, match="gone.wav"):
        take_apart(tmp_path / "gone.wav", RATE)
    with pytest.raises(MediaError, match="bytes of media: is empty"):
        take_apart(b"", RATE)


def test_a_sound_that_was_cut_off_counts_as_far_as_it_goes(tmp_path):
    whole = encoded_sound(tone(RATE, 3.0), RATE)
    found = take_apart(whole[: len(whole) // 2 + 50], RATE)
    assert times(found) == [0, 1] and found.moments[1].seconds == pytest.approx(0.5, abs=0.01)


# ----------------------------------------------------------------------------------------- blank


def test_silence_and_plain_pictures_are_blank():
    quiet = 10 ** (-60 / 20)
    for level, blank in ((0.0, True), (0.9 * quiet, True), (1.1 * quiet, False)):
        assert is_blank(np.full(100, level, np.float32)) is blank
    assert is_blank(np.zeros(0, np.float32))
    plain = np.full((30, 40, 3), 200, np.uint8)
    assert is_blank(plain) and not is_blank(picture())
    marked = plain.copy()
    marked[:, 20:] = 190
    assert not is_blank(marked)


# ---------------------------------------------------------------------------- many items at once


def test_items_are_taken_apart_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("anymodal.answering._HELD", 3 * 40 * 60 * 3)
    groups = list(taken_apart((picture(seed=n) for n in range(7)), RATE))
    assert [len(group) for group in groups] == [3, 3, 1]
    assert np.array_equal(groups[2][0].moments[0].image, picture(seed=6))
    assert list(taken_apart([], RATE)) == []
    # the next are not decoded before they are asked for
    rest = taken_apart(iter([*[picture()] * 3, "gone.wav"]), RATE)
    assert len(next(rest)) == 3
    with pytest.raises(MediaError, match="gone"):
        next(rest)


@pytest.mark.parametrize(
    "one",
    [
        "a.wav", Path("a.wav"), b"abc", bytearray(b"abc"), picture(), Image.new("RGB", (3, 3)),
        Sound(np.zeros(9), RATE), (np.zeros(9), RATE), (np.zeros(9), 44_100.0),
    ],
)  # fmt: skip
def test_one_item_is_no_list_of_items(one):
    with pytest.raises(AnymodalError, match=r"write \[item\]"):
        list(taken_apart(one, RATE))


def test_two_items_may_be_a_tuple():
    (group,) = taken_apart((picture(), picture()), RATE)
    assert len(group) == 2


def test_moments_tell_what_they_have():
    sound, image = np.zeros(4, np.float32), picture()
    mixed = Moments("x", "video", 2.0, (Moment(0, 1, audio=sound), Moment(1, 1, image=image)))
    assert mixed.modalities() == ("audio", "image")
    assert mixed.moments[0].of("image") is None and mixed.moments[0].of("audio") is sound
