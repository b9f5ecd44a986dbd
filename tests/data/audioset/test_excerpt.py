"""The right second and the right frame come out, whatever the video looks like."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset import ffmpeg as ffmpeg_module
from anymodal.data.audioset.downloader import LocalDownloader
from anymodal.data.audioset.excerpt import content_id, excerpt
from anymodal.data.audioset.ffmpeg import Input, cut, find_ffmpeg
from anymodal.data.audioset.status import FetchError, Status
from anymodal.media import decoding
from helpers.fetch_plans import require_ffmpeg
from helpers.videos import RATE, colour, timed_video


@pytest.fixture(autouse=True)
def _ffmpeg():
    require_ffmpeg()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def plain(folder):
    """Six seconds, H.264 with one key frame and AAC."""
    return timed_video(folder / "plain.mp4", size=(160, 120))


def clip(path, start, frame, tmp_path, **more):
    into = tmp_path / f"cut-{len(list(tmp_path.iterdir()))}"
    into.mkdir()
    paths = path if isinstance(path, list) else [path]
    inputs = [Input(f"file:{each}") for each in paths]
    return excerpt(cut(inputs, start, 1.0, into, timeout_s=20, stall_s=5), frame, **more)


def mean_colour(jpg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpg)).convert("RGB")).mean(axis=(0, 1))


def audio_of(flac: bytes) -> np.ndarray:
    return decoding.load_audio(flac, 48_000, duration_s=None)


def test_every_sample_and_frame_is_the_wanted_one(folder, tmp_path):
    # in whole steps of sixteen bits
    noise = np.random.default_rng(0).integers(-12000, 12000, 6 * 48_000) / 32768
    lossless = {"codec": "ffv1", "audio_codec": "flac"}
    path = timed_video(folder / "exact.mkv", samples=noise, sample_rate=48_000, **lossless)
    for start, frame in ((0, 0.0), (0.013, 0.5), (0.5, 0.999), (2, 0.001), (3.217, 0.4), (5, 0.9)):
        made = clip(path, start, frame, tmp_path)
        first = round(start * 48_000)
        np.testing.assert_array_equal(audio_of(made.flac), noise[first : first + 48_000])
        # a cut's frames stand 1/50 s apart
        shown = {
            int((start + frame - back) * RATE + 1e-6)
            for back in (0.0, 0.02)
            if start + frame >= back
        }
        near = [np.abs(mean_colour(made.jpg) - colour(index)).max() for index in shown]
        assert min(near) < 3, (start, frame)


def test_lossy_streams_keep_their_time(plain, folder, tmp_path):
    webm = timed_video(
        folder / "plain.webm", sample_rate=48_000, codec="libvpx-vp9", audio_codec="libopus"
    )
    # WebM counts in milliseconds, and Opus adds 6.5 of them
    for path, most in ((plain, 2.0), (webm, 50.0)):
        for start in (0.0, 0.01, 1.0, 2.0, 4.9):
            made = clip(path, start, 0.5, tmp_path)
            samples = audio_of(made.flac)
            assert len(samples) == 48_000
            assert abs(delay(samples, start)) <= most, (path.name, start)
            index = int((start + 0.5) * RATE + 1e-6)
            assert np.abs(mean_colour(made.jpg) - colour(index)).max() < 6


def delay(samples: np.ndarray, start: float) -> float:
    """Samples by which the tone of the first whole second in `samples` is late."""
    second = int(np.ceil(start))
    first = round((second - start) * 48_000) + 2_000
    count = min(30_000, len(samples) - first - 500) // 480 * 480
    pitch = 300 + 100 * second
    if count < 480:
        second, first, count = second - 1, 500, 9_600
        pitch -= 100
    time = start + np.arange(first, first + count) / 48_000
    turned = samples[first : first + count] @ np.exp(-2j * np.pi * pitch * time)
    return -float(np.angle(turned * 1j)) / (2 * np.pi * pitch) * 48_000


def test_a_frame_that_is_shown_for_long_is_made(folder, tmp_path):
    slow = timed_video(folder / "slow.mp4", frames=[0, 70, 149])
    for start, index in ((0.0, 0), (1.5, 0), (2.4, 70), (4.9, 70)):
        made = clip(slow, start, 0.5, tmp_path)
        assert np.abs(mean_colour(made.jpg) - colour(index)).max() < 6, start


def test_images_and_audio_may_be_two_sources(folder, tmp_path):
    images = timed_video(folder / "images.mp4", with_audio=False)
    audio = timed_video(folder / "audio.m4a", with_images=False)
    both = timed_video(folder / "both.mp4")
    apart, together = (clip(each, 2.5, 0.3, tmp_path) for each in ([images, audio], [both]))
    assert apart.jpg == together.jpg
    # 44.1 kHz and 48 kHz meet at other points, so that up to a sample lies between the two
    difference = audio_of(apart.flac) - audio_of(together.flac)
    assert np.abs(difference).max() < 0.05


def test_the_same_video_gives_the_same_clip(plain, tmp_path):
    first, second = (clip(plain, 2.2, 0.4, tmp_path) for _ in range(2))
    assert first == second
    assert first.clip_id == content_id(first.flac, first.jpg)
    assert len(first.clip_id) == 16
    assert clip(plain, 2.3, 0.4, tmp_path).clip_id != first.clip_id


@pytest.mark.parametrize(
    ("size", "reduced", "more"),
    [
        ((640, 360), (455, 256), {}),
        ((360, 640), (256, 455), {}),
        ((160, 120), (160, 120), {}),
        ((160, 120), (80, 60), {"short_side": 60, "jpeg_quality": 50}),
    ],
)
def test_large_frames_are_reduced_and_small_ones_kept(size, reduced, more, tmp_path):
    path = timed_video(tmp_path / "video.mp4", 1.1, size=size)
    made = clip(path, 0.0, 0.0, tmp_path, **more)
    assert (made.width, made.height) == Image.open(io.BytesIO(made.jpg)).size == reduced


def test_a_video_that_ends_too_early(plain, folder, tmp_path):
    clip(plain, 5.0, 0.99, tmp_path)
    for start in (5.01, 5.5, 6.0, 60.0):
        with pytest.raises(FetchError, match="shorter than the wanted second") as caught:
            clip(plain, start, 0.0, tmp_path)
        assert caught.value.status is Status.BROKEN
    stopped = timed_video(folder / "stopped.mp4", frames=list(range(50)))
    with pytest.raises(FetchError, match="its images end before"):
        clip(stopped, 4.0, 0.0, tmp_path)


def test_audio_that_starts_late(folder, tmp_path):
    path = timed_video(folder / "prompt.mp4", 3.0)
    slightly, late = folder / "slightly.mp4", folder / "late.mp4"
    remux(path, slightly, 0.05)
    samples = audio_of(clip(slightly, 0.0, 0.5, tmp_path).flac)
    assert len(samples) == 48_000
    assert np.abs(samples[:2_000]).max() < 0.02 < np.abs(samples[4_000:]).max()
    remux(path, late, 0.4)
    with pytest.raises(FetchError, match=r"starts 0\.3\d\d s late"):
        clip(late, 0.0, 0.5, tmp_path)
    clip(late, 1.0, 0.5, tmp_path)


def remux(source, target, audio_late_s):
    """Copy a video with its audio put off."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {each.index: new.add_stream_from_template(each) for each in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                late = round(audio_late_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + late, packet.dts + late
            packet.stream = streams[packet.stream.index]
            new.mux(packet)


# must not lead to the net
PLAY_LIST = (
    b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
)


def test_files_that_are_no_videos(folder, plain, tmp_path):
    whole = plain.read_bytes()
    for number, content in enumerate(
        (b"", bytes(range(256)) * 99, whole[: len(whole) // 2], PLAY_LIST)
    ):
        path = folder / f"bad-{number}.mp4"
        path.write_bytes(content)
        with pytest.raises(FetchError) as caught:
            clip(path, 1.0, 0.0, tmp_path)
        assert "\n" not in str(caught.value)


def test_it_ends_when_its_time_is_up(plain, tmp_path):
    with pytest.raises(FetchError, match="more than 0.01 s") as caught:
        cut([Input(f"file:{plain}")], 1.0, 1.0, tmp_path, timeout_s=0.01, stall_s=5)
    assert caught.value.status is Status.FAILED


def test_without_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setattr(ffmpeg_module.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(AnymodalError, match=r"anymodal\[audioset\]"):
        find_ffmpeg()
    monkeypatch.setattr(ffmpeg_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert find_ffmpeg() == "/usr/bin/ffmpeg"


class TestLocal:
    def fetched(self, downloader, video_id, start, tmp_path):
        into = tmp_path / f"{video_id}-{start}"
        into.mkdir()
        return excerpt(downloader.fetch(video_id, start, 1.0, into), 0.5)

    @pytest.fixture
    def videos(self, tmp_path):
        # what ffmpeg could take for an option, a pattern or an address of its own
        folder = tmp_path / "with: colon %d"
        (folder / "deep").mkdir(parents=True)
        timed_video(folder / "wholewhole1.mp4", size=(32, 24))
        part = timed_video(tmp_path / "part.mp4", 4.0, size=(32, 24), blue=40)
        for name in ("secondssss1_30.mp4", "deep/range_rang1_30_34.mp4", "range_rang2_30-34.MP4",
                     "millis_mil1_30000_34000.mp4", "zeropadded1_000030.mp4", "-vf_abcdefg_30.mp4",
                     "a%03d_bcdef_30.mp4"):  # fmt: skip
            (folder / name).write_bytes(part.read_bytes())
        (folder / "notes.txt").write_text("nothing")
        (folder / ".hidden.mp4").write_text("nothing")
        return folder

    def test_names_say_where_a_file_starts(self, videos, tmp_path):
        local = LocalDownloader(videos)
        whole = self.fetched(local, "wholewhole1", 2.0, tmp_path)
        assert np.abs(mean_colour(whole.jpg) - colour(62)).max() < 6
        for name in ("secondssss1", "range_rang1", "range_rang2", "millis_mil1", "zeropadded1",
                     "-vf_abcdefg", "a%03d_bcdef"):  # fmt: skip
            made = self.fetched(local, name, 32.0, tmp_path)
            assert np.abs(mean_colour(made.jpg) - colour(62, 40)).max() < 6, name

    def test_what_is_not_there(self, videos, tmp_path):
        local = LocalDownloader(videos)
        for name, start in (("nobody_knows", 1.0), ("secondssss1", 0.01), ("notes", 1.0)):
            with pytest.raises(FetchError) as caught:
                self.fetched(local, name, start, tmp_path)
            assert caught.value.status is Status.ABSENT

    def test_folders_that_will_not_do(self, tmp_path):
        with pytest.raises(AnymodalError, match="no folder"):
            LocalDownloader(tmp_path / "none")
        with pytest.raises(AnymodalError, match="no videos"):
            LocalDownloader(tmp_path)
