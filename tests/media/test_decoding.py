"""Decoding: every kind of file is made here with known content and read back."""

from __future__ import annotations

import io
import math
import os

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media import decoding
from helpers.encoded import encoded_audio, encoded_image, encoded_video, spectrum_peak, tone
from helpers.paths import shared

RNG = np.random.default_rng(0)


# ---------------------------------------------------------------------------------------- audio


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count(rate, channels):
    audio = decoding.load_audio(encoded_audio(tone(rate, 1.5, channels=channels), rate), 16_000)
    assert audio.dtype == np.float32 and audio.shape == (16_000,) and audio.flags.c_contiguous
    assert spectrum_peak(audio, 16_000) == pytest.approx(440, abs=2)
    # in phase with the sine it was made from: no delay by the resampler
    expected = tone(16_000, 1.0)[:, 0]
    assert np.abs(audio - expected)[200:].max() < 2e-3


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"format": "WAV", "subtype": "PCM_U8"}, 1e-2),
        ({"format": "WAV", "subtype": "PCM_24"}, 1e-6),
        ({"format": "WAV", "subtype": "DOUBLE"}, 1e-6),
        ({"format": "FLAC"}, 1e-4),
        ({"format": "OGG", "subtype": "VORBIS"}, 5e-2),
        ({"format": "MP3"}, 5e-2),
        ({"format": "AIFF"}, 1e-4),
    ],
)
def test_formats_of_libsndfile(options, tolerance):
    content = encoded_audio(tone(16_000, 2.0), 16_000, **options)
    assert decoding.sniff(content) == "audio"
    assert decoding.audio_duration(content) == pytest.approx(2.0, abs=0.15)
    audio = decoding.load_audio(content, 16_000, start_s=0.5)
    assert np.abs(audio - tone(16_000, 2.0)[8_000:24_000, 0]).max() < tolerance


def test_channels_are_averaged_and_loud_samples_clipped():
    stereo = np.stack([np.full(16_000, 0.5), np.full(16_000, -0.25)], axis=1)
    audio = decoding.load_audio(encoded_audio(stereo, 16_000, subtype="FLOAT"), 16_000)
    np.testing.assert_allclose(audio, 0.125)
    loud = encoded_audio(np.full(100, 3.0), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(decoding.load_audio(loud, 16_000), 1.0)


def test_shorter_and_longer_than_the_window():
    content = encoded_audio(tone(16_000, 2.5), 16_000)
    for start, duration, samples in (
        (0.0, 1.0, 16_000),
        (2.0, 1.0, 8_000),
        (0.0, None, 40_000),
        (1.0, None, 24_000),
        (0.0, 0.1, 1_600),
        (0.0, 1e-9, 1),
    ):
        assert len(decoding.load_audio(content, 16_000, start, duration)) == samples
    for rate in (16_000, 44_100):
        assert len(decoding.load_audio(encoded_audio(np.full(1, 0.5), rate), 16_000)) == 1


@settings(max_examples=40, deadline=None)
@given(
    old=st.sampled_from([8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 12_345]),
    new=st.sampled_from([16_000, 48_000, 22_050]),
    start=st.floats(0, 1.9),
    duration=st.floats(0.01, 1.5),
)
def test_a_window_equals_the_cut_of_the_whole(old, new, start, duration):
    noise = np.random.default_rng(1).uniform(-0.4, 0.4, 2 * old).astype(np.float32)
    content = encoded_audio(noise, old, subtype="FLOAT")
    whole = soxr.resample(noise, old, new)
    first = round(start * new)
    expected = whole[first : first + math.floor(duration * new + 1e-6)]
    window = decoding.load_audio(content, new, start_s=start, duration_s=duration)
    assert window.shape == expected.shape
    assert np.abs(window - expected).max(initial=0) < 1e-5


def test_only_the_part_needed_is_read(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(60 * 44_100), 44_100)
    reads = []

    class Counting(io.FileIO):
        def readinto(self, buffer):
            reads.append(len(buffer))
            return super().readinto(buffer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding.io, "FileIO", Counting)
        decoding.load_audio(path, 16_000, start_s=30.0)
    assert sum(reads) < path.stat().st_size / 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(value):
    samples = np.zeros(1_000)
    samples[500] = value
    with pytest.raises(MediaError, match="finite"):
        decoding.load_audio(encoded_audio(samples, 16_000, subtype="FLOAT"), 16_000)


def test_no_samples_and_past_the_end():
    with pytest.raises(MediaError, match="no audio at 0 s"):
        decoding.load_audio(encoded_audio(np.zeros(0), 16_000), 16_000)
    for rate in (16_000, 44_100):
        with pytest.raises(MediaError, match=r"no audio at 1\.5 s"):
            decoding.load_audio(encoded_audio(tone(rate, 1.0), rate), 16_000, start_s=1.5)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"start_s": -1.0}, "start_s"),
        ({"start_s": math.nan}, "start_s"),
        ({"duration_s": 0.0}, "duration_s"),
        ({"duration_s": math.inf}, "duration_s"),
        ({"sample_rate": 0}, "sample_rate"),
    ],
)
def test_wrong_arguments_are_named(arguments, name):
    content = encoded_audio(tone(16_000, 1.0), 16_000)
    with pytest.raises(AnymodalError, match=name):
        decoding.load_audio(content, **{"sample_rate": 16_000, **arguments})


@pytest.mark.parametrize(
    ("kind", "codec", "rate"),
    [("mp4", "aac", 44_100), ("mp4", "aac", 16_000), ("webm", "libopus", 48_000)],
)
def test_audio_that_libsndfile_cannot_read(kind, codec, rate):
    wave = tone(rate, 3.0, hz=300.0)[:, 0] * np.linspace(0.2, 1.0, 3 * rate)
    content = encoded_video(kind, frames=0, audio=(codec, wave, rate))
    assert decoding.sniff(content) == "audio"
    assert decoding.audio_duration(content) == pytest.approx(3.0, abs=0.1)
    whole = decoding.load_audio(content, 16_000, duration_s=None)
    assert len(whole) == pytest.approx(48_000, abs=1_600)
    for start in (0.0, 1.0, 1.7):
        window = decoding.load_audio(content, 16_000, start_s=start)
        assert len(window) == 16_000
        first = round(start * 16_000)
        # Matroska stamps whole milliseconds, so that a window after a seek may be off by one
        shifts = range(-16, 17) if kind == "webm" and start else (0,)
        assert min(np.abs(window - np.roll(whole, k)[first:][:16_000]).max() for k in shifts) < 0.03
        expected = 0.5 * np.mean(0.2 + 0.8 * (start + np.array([0.0, 1.0])) / 3)
        assert np.sqrt(2 * np.mean(window**2)) == pytest.approx(expected, rel=0.1)
    with pytest.raises(MediaError, match="no audio at 5 s"):
        decoding.load_audio(content, 16_000, start_s=5.0)


# ---------------------------------------------------------------------------------------- images


def test_plain_image(tmp_path):
    pixels = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    content = encoded_image(Image.fromarray(pixels))
    path = tmp_path / "image.wav"  # the name does not count
    path.write_bytes(content)
    for source in (content, path, str(path)):
        assert decoding.sniff(source) == "image"
        image = decoding.load_image(source)
        assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
        np.testing.assert_array_equal(image, pixels)


def test_transparency_becomes_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (0, 0, 0, 128)
    image = decoding.load_image(encoded_image(Image.fromarray(pixels, "RGBA")))
    assert image.tolist() == [[[255, 0, 0], [127, 127, 127]], [[255, 255, 255]] * 2]


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    expected = [[10, 20, 30], [200, 100, 50]]
    assert decoding.load_image(encoded_image(image, "GIF"))[0].tolist() == expected
    assert decoding.load_image(encoded_image(image))[0].tolist() == expected
    clear = decoding.load_image(encoded_image(image, transparency=0))[0].tolist()
    assert clear == [[255, 255, 255], [200, 100, 50]]


def test_grey_of_8_and_16_bits_and_one():
    ramp = np.arange(0, 65_536, 257, dtype=np.uint16)[None]
    grey = decoding.load_image(encoded_image(Image.fromarray(ramp)))
    np.testing.assert_array_equal(grey[0, :, 0], np.arange(256))
    eight = Image.fromarray((ramp // 257).astype("u1"))
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decoding.load_image(encoded_image(eight, kind)), grey)
    bits = decoding.load_image(encoded_image(Image.fromarray(ramp > 30_000)))
    assert set(np.unique(bits)) == {0, 255}
    with pytest.raises(MediaError, match="floating-point"):
        decoding.load_image(encoded_image(Image.fromarray(ramp.astype("f4")), "TIFF"))


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind, tolerance in (("TIFF", 0), ("JPEG", 3)):
        pixels = decoding.load_image(encoded_image(image, kind)).astype(int)
        assert np.abs(pixels - [255, 0, 0]).max() <= tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_orientation_and_damaged_exif():
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255  # the left half, which orientation 6 turns into the top
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decoding.load_image(encoded_image(image, "JPEG", exif=exif))
    assert upright.shape == (32, 16, 3)
    assert upright[:14].min() > 240 and upright[18:].max() < 15
    damaged = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + bytes(7)
    content = encoded_image(image, "JPEG", exif=damaged)
    assert decoding.load_image(content).shape == (16, 32, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded_image(frames[0], kind, save_all=True, append_images=frames[1:], quality=100)
    assert decoding.sniff(content) == "image"
    assert np.abs(decoding.load_image(content).astype(int) - [255, 0, 0]).max() < 6


def test_decompression_bombs_and_large_images_are_refused(monkeypatch):
    bomb = encoded_image(Image.new("1", (14_000, 14_000)))
    assert len(bomb) < 100_000
    for call in (decoding.load_image, decoding.sniff):
        with pytest.raises(MediaError, match="more than 100,000,000"):
            call(bomb)
    # below Pillow's own limit
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    with pytest.raises(MediaError, match="10 × 10 pixels are more than 99"):
        decoding.load_image(encoded_image(Image.new("RGB", (10, 10))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_truncated_image(kind):
    pixels = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded_image(Image.fromarray(pixels), kind)
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(MediaError):
            decoding.load_image(content[: int(share * len(content))])


# ----------------------------------------------------------------------------------------- video


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "mpeg4"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")]
)
def test_frame_on_display(kind, codec):
    content = encoded_video(kind, codec)  # 10 frames a second
    assert decoding.sniff(content) == "video"
    for at, frame in ((0.0, 0), (0.05, 0), (0.1, 1), (0.3, 3), (1.26, 12), (3.99, 39), (4.95, 49)):
        image = decoding.load_frame(content, at)
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        assert abs(float(image.mean()) - 5 * frame) < 2.5, at
    with pytest.raises(MediaError, match="no video at 60 s"):
        decoding.load_frame(content, 60.0)
    with pytest.raises(AnymodalError, match="at_s"):
        decoding.load_frame(content, -1.0)


@pytest.mark.parametrize("kind", ["mp4", "mpegts"])
def test_audio_and_image_share_a_clock(kind):
    """A click at 2.5 s of the file is found there, whatever the container calls its start."""
    wave = np.zeros(5 * 44_100)
    wave[round(2.5 * 44_100)] = 0.9
    content = encoded_video(kind, "mpeg2video", audio=("aac", wave, 44_100), rate=25)
    assert decoding.sniff(content) == "video"
    window = decoding.load_audio(content, 16_000, start_s=2.0)
    # the encoder's own delay may remain in a transport stream
    assert np.argmax(np.abs(window)) / 16_000 == pytest.approx(0.5, abs=0.05)
    # in a transport stream the video starts a part of a frame later than the audio
    frame = {"mp4": 25, "mpegts": 24}[kind]
    assert abs(float(decoding.load_frame(content, 1.0).mean()) - 5 * frame) < 2.5


def test_rotated_video_is_turned_upright():
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32] = 255
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        encoded = av.VideoFrame.from_ndarray(frame, format="rgb24")
        container.mux([*stream.encode(encoded), *stream.encode()])
    content = bytearray(buffer.getvalue())
    # the display matrix in the track header: 90 degrees clockwise, as phones write it
    at = content.index(b"tkhd") + 4 + 40
    matrix = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    image = decoding.load_frame(bytes(content))
    # turned clockwise, the left half comes on top
    assert image.shape == (64, 48, 3) and image[:28].mean() > 240 and image[36:].mean() < 15


def test_late_video_shows_its_first_frame_before_it():
    content = encoded_video("mp4", audio=("aac", tone(44_100, 5.0)[:, 0], 44_100), late=20)
    assert abs(float(decoding.load_frame(content, 0.5).mean()) - 100) < 2.5


def test_the_wrong_kind_of_media():
    image = encoded_image(Image.new("RGB", (8, 8)))
    audio = encoded_audio(tone(16_000, 0.5), 16_000)
    video = encoded_video()
    for load, sources in (
        (lambda source: decoding.load_audio(source, 16_000), (image, video)),
        (decoding.audio_duration, (image, video)),
        (decoding.video_duration, (image, audio)),
        (decoding.load_image, (audio, video)),
        (decoding.load_frame, (image, audio)),
    ):
        for source in sources:
            with pytest.raises(MediaError):
                load(source)


def test_cover_of_a_song_is_no_video():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        audio = container.add_stream("aac", rate=44_100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        samples = np.ascontiguousarray(tone(44_100, 1.0).T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
        frame.sample_rate = 44_100
        container.mux([*audio.encode(frame), *audio.encode()])
        image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        container.mux([*cover.encode(image), *cover.encode()])
    content = buffer.getvalue()
    assert decoding.sniff(content) == "audio"
    with pytest.raises(MediaError, match="no video"):
        decoding.load_frame(content)


# --------------------------------------------------------------------------------- bad sources


def everything(source):
    yield lambda: decoding.sniff(source)
    yield lambda: decoding.load_audio(source, 16_000)
    yield lambda: decoding.audio_duration(source)
    yield lambda: decoding.load_image(source)
    yield lambda: decoding.load_frame(source)


@pytest.mark.parametrize("content", [b"", b"x", b"hello world\n" * 500, bytes(50_000)])
def test_not_media(content, tmp_path):
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    for call in (*everything(content), *everything(path)):
        with pytest.raises(MediaError) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match=r"song\.mp3"):
        decoding.sniff(path)


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("absent.wav", "does not exist"), (".", "not a file"), ("pipe", "not a")):
        for call in everything(tmp_path / name):
            with pytest.raises(MediaError, match=reason):
                call()
    for call in everything(3):
        with pytest.raises(AnymodalError, match="path or bytes"):
            call()


def test_references_to_other_files_are_not_followed(tmp_path):
    target = tmp_path / "target.mp4"
    target.write_bytes(encoded_video(audio=("aac", tone(44_100, 1.0)[:, 0], 44_100)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target.as_uri()}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile {target}\n"
    for content in (playlist, concat):
        for call in everything(content.encode()):
            with pytest.raises(MediaError):
                call()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_damage_ends_in_a_result_or_a_media_error(data):
    kind = data.draw(st.sampled_from(sorted(SAMPLES)))
    content = bytearray(SAMPLES[kind])
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    for call in everything(bytes(content)):
        try:
            call()
        except MediaError as error:
            assert "\n" not in str(error)


SAMPLES = {
    "wav": encoded_audio(tone(8_000, 0.5), 8_000),
    "ogg": encoded_audio(tone(8_000, 0.5), 8_000, format="OGG"),
    "flac": encoded_audio(tone(8_000, 0.5), 8_000, format="FLAC"),
    "png": encoded_image(Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8))),
    "jpeg": encoded_image(Image.new("RGB", (16, 16), "green"), "JPEG"),
    "mp4": encoded_video(frames=5, audio=("aac", tone(16_000, 0.5)[:, 0], 16_000)),
}


# ------------------------------------------------------------------------------------ real files


def test_real_recordings():
    for path in shared("data/instruments/audio/*/*.ogg")[::25]:
        assert decoding.sniff(path) == "audio"
        seconds = decoding.audio_duration(path)
        whole = decoding.load_audio(path, 16_000, duration_s=None)
        assert len(whole) == pytest.approx(seconds * 16_000, abs=1)
        assert np.isfinite(whole).all() and np.abs(whole).max() <= 1
        window = decoding.load_audio(path, 16_000, start_s=seconds / 2, duration_s=0.1)
        first = round(seconds / 2 * 16_000)
        np.testing.assert_allclose(window, whole[first : first + len(window)], atol=1e-4)


def test_real_video():
    (path,) = shared("data/video/*.mp4")
    assert decoding.sniff(path) == "video"
    assert decoding.audio_duration(path) == pytest.approx(8.0, abs=0.1)
    assert decoding.load_frame(path, 4.0).shape == (720, 1280, 3)
    whole = decoding.load_audio(path, 16_000, duration_s=None)
    window = decoding.load_audio(path, 16_000, start_s=3.3)
    first = round(3.3 * 16_000)
    # AAC may code noise as noise, which every decoding draws afresh
    np.testing.assert_allclose(window, whole[first : first + 16_000], atol=1e-2)
