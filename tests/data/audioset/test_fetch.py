"""Whole runs: faults, resuming, replacements, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.core.locking import exclusive
from anymodal.data.audioset import retry, ytdlp
from anymodal.data.audioset.downloader import LocalDownloader
from anymodal.data.audioset.fetch import fetch_plan, make_downloader
from anymodal.data.audioset.ledger import NAME, Ledger
from anymodal.data.audioset.results import clips_of
from anymodal.data.audioset.retry import pause_s
from anymodal.data.audioset.shards import whole_clips
from anymodal.data.audioset.status import FetchError, Status
from anymodal.data.audioset.ytdlp import YtDlpDownloader
from anymodal.data.clips import read_clips, write_clips
from anymodal.media import decoding
from helpers.fetch_plans import (
    different_videos,
    make_plan,
    quick,
    require_ffmpeg,
    require_ytdlp,
    table_without_places,
)
from helpers.fetch_site import Page, Site
from helpers.videos import colour, timed_video

COUNT = 14


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    require_ffmpeg()
    return different_videos(tmp_path_factory.mktemp("made"), COUNT)


@pytest.fixture
def site():
    require_ytdlp()
    site = Site()
    yield site
    site.close()


@pytest.fixture
def local(videos, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, content in enumerate(videos):
        (folder / f"v{number}.mp4").write_bytes(content)
    return folder


def remote(site, **more) -> YtDlpDownloader:
    return YtDlpDownloader(site.template, **{"timeout_s": 10, "stall_s": 1, **more})


def ledger_lines(out) -> list[dict]:
    content = (out / NAME).read_bytes() if (out / NAME).exists() else b""
    return [json.loads(each) for each in content[: content.rfind(b"\n") + 1].splitlines()]


def statuses(out, fact="status") -> dict[str, str]:
    return {each["video_id"]: each[fact] for each in ledger_lines(out)}


def members(out) -> list[str]:
    names = []
    for path in sorted((out / "shards").iterdir()):
        assert path.suffix == ".tar"
        with tarfile.open(path) as tar:
            names += tar.getnames()
    return names


def retrieval(wanted, reserve=(), **more):
    return make_plan(("retrieval", None, {"test": list(wanted)}, list(reserve)), **more)


class TestFaults:
    @pytest.mark.slow
    def test_every_fault_of_a_site(self, site, videos, tmp_path):
        """One plan, one id a fault; what can be had is had, and the rest has its status."""
        good = iter(videos)
        folder = tmp_path / "made"
        folder.mkdir()
        halves = {
            name: timed_video(folder / f"{name}.mp4", 3.0, size=(32, 24), **options).read_bytes()
            for name, options in {
                "audio_only": {"with_images": False},
                "images_only": {"with_audio": False},
                "too_short": {},
                "index_last": {"options": {}},
            }.items()
        }
        pages = {
            "fine": (Page(next(good)), "done", 1),
            "no_ranges": (Page(next(good), ranges=False), "done", 1),
            "not_found": (Page(fault="404"), "gone", 1),
            "gone_410": (Page(fault="410"), "gone", 1),
            "legal_451": (Page(fault="451"), "blocked", 1),
            "sign_in_401": (Page(fault="401"), "private", 1),
            "once_500": (Page(next(good), fault="500", times=1), "done", 2),
            "once_429": (Page(next(good), fault="429", times=1), "done", 2),
            "media_503": (Page(next(good), fault="503", after=1, times=1), "done", 2),
            "media_404": (Page(next(good), fault="404", after=1, times=1), "done", 2),
            "dies_half_way": (Page(next(good), fault="cut", after=1, times=1), "done", 2),
            "hangs_up_once": (Page(next(good), fault="drop", times=1), "done", 2),
            "stalls_once": (Page(next(good), fault="stall", after=1, times=1), "done", 2),
            "always_403": (Page(fault="403"), "failed", 2),
            "always_503": (Page(fault="503"), "failed", 2),
            "truncated": (Page(halves["index_last"], fault="cut"), "broken", 2),
            "garbage": (Page(bytes(range(256)) * 200), "broken", 2),
            "a_web_page": (Page(b"<html><p>no video</p></html>", "text/html"), "broken", 1),
            "audio_only": (Page(halves["audio_only"]), "broken", 1),
            "an_mp3": (Page(halves["audio_only"], "audio/mp4"), "broken", 1),
            "images_only": (Page(halves["images_only"]), "broken", 1),
            "too_short": (Page(halves["too_short"]), "broken", 2),
        }
        site.pages = {name: page for name, (page, _, _) in pages.items()}
        reports = fetch_plan(retrieval(pages), remote(site), tmp_path / "out", quick(parallel=6))
        last, tried = (statuses(tmp_path / "out", fact) for fact in ("status", "attempts"))
        assert {name: (last[name], tried[name]) for name in pages} == {
            name: (status, count) for name, (_, status, count) in pages.items()
        }
        counts = Counter(status for _, status, _ in pages.values())
        assert reports.causes == dict(counts)
        (row,) = reports.account.to_dict("records")
        assert row == {
            "subset": "retrieval", "instrument": None, "split": "test", "wanted": len(pages),
            "fetched": counts["done"], "replaced": 0, "failed": 2,
            "dead": len(pages) - counts["done"] - 2, "short": len(pages) - counts["done"],
        }  # fmt: skip
        assert reports.tiny == counts["done"]
        assert reports.stopped is None
        assert len(members(tmp_path / "out")) == 3 * counts["done"]
        errors = {
            each: Ledger(tmp_path / "out" / NAME).latest(f"{each}@2200+400").error for each in pages
        }
        assert "shorter than the wanted second" in errors["too_short"]
        assert "no image" in errors["audio_only"]
        assert "no audio" in errors["images_only"]
        assert "127.0.0.1" not in errors["garbage"]

        # a second run asks for none of the dead, and for the failed ones again
        before = site.requests.copy()
        report = fetch_plan(retrieval(pages), remote(site), tmp_path / "out", quick())
        asked = {name for name, count in (site.requests - before).items() if count}
        assert asked == {"always_403", "always_503"}
        # which have failed four times now, and are as good as dead
        assert report.account["failed"].item() == 0
        before = site.requests.copy()
        fetch_plan(retrieval(pages), remote(site), tmp_path / "out", quick())
        assert site.requests == before

    @pytest.mark.slow
    def test_a_line_that_drips_is_cut_off(self, site, videos, tmp_path):
        site.pages["drip"] = Page(videos[0], fault="drip", after=1)
        start = time.monotonic()
        fetch_plan(retrieval(["drip"]), remote(site, timeout_s=1.5), tmp_path, quick(tries=1))
        assert time.monotonic() - start < 5
        assert "took more than" in Ledger(tmp_path / NAME).latest("drip@2200+400").error

    def test_finding_the_address_is_limited_too(self, site, tmp_path):
        site.pages["slow"] = Page(fault="stall")
        downloader = remote(site, timeout_s=0.5, stall_s=20)
        with pytest.raises(FetchError, match="finding its address took more than 0.5 s"):
            downloader.fetch("slow", 0.0, 1.0, tmp_path)

    def test_a_server_that_is_not_there(self, tmp_path):
        require_ytdlp()
        require_ffmpeg()
        downloader = YtDlpDownloader("http://127.0.0.1:9/{id}.mp4", stall_s=1)
        with pytest.raises(FetchError) as caught:
            downloader.fetch("a", 0.0, 1.0, tmp_path)
        assert caught.value.status is Status.FAILED

    @pytest.mark.slow
    def test_an_outage_stops_the_run_and_is_held_against_nobody(self, site, videos, tmp_path):
        names = [f"v{number}" for number in range(6)]
        plan = retrieval(names, ["r0"])
        site.pages = {name: Page(videos[number]) for number, name in enumerate([*names, "r0"])}
        for name in names[1:]:
            site.pages[name].fault = "503"
        params = quick(parallel=1, outage=4, tries=1, give_up=1)
        report = fetch_plan(plan, remote(site), tmp_path, params)
        assert "4 clips in a row failed" in report.stopped
        assert "503" in report.stopped
        assert Counter(statuses(tmp_path).values()) == {"done": 1, "outage": 4}
        assert report.account["dead"].item() == 0
        assert report.account["failed"].item() == 4
        assert "r0" not in statuses(tmp_path)
        for page in site.pages.values():
            page.fault = ""
        report = fetch_plan(plan, remote(site), tmp_path, params)
        assert report.account["short"].item() == 0
        assert (report.fetched, report.stopped) == (5, None)

    @pytest.mark.slow
    def test_all_wait_when_asked_to_slow_down(self, site, videos, tmp_path):
        site.pages = {f"v{number}": Page(videos[number]) for number in range(3)}
        site.pages["v0"] = Page(videos[0], fault="429", times=1, headers={"Retry-After": "1"})
        start = time.monotonic()
        fetch_plan(retrieval(site.pages), remote(site), tmp_path, quick(parallel=1))
        assert 1.0 <= time.monotonic() - start < 8
        assert set(statuses(tmp_path).values()) == {"done"}


def test_pauses_grow_up_to_a_limit_and_are_longer_when_asked_to_slow_down():
    params = quick(backoff_s=2.0, throttle_s=60.0, backoff_max_s=500.0)
    pauses = [pause_s(n, FetchError(Status.FAILED, ""), params) for n in range(1, 12)]
    assert all(2 * 2**n * 0.5 <= pause <= 2 * 2**n * 1.5 for n, pause in enumerate(pauses[:7]))
    assert pauses[-1] == 500
    for after_s, least, most in ((None, 30, 90), (400, 400, 400), (1e9, 500, 500)):
        error = FetchError(Status.FAILED, "", throttled=True, after_s=after_s)
        assert least <= pause_s(1, error, params) <= most


class TestReplacements:
    @staticmethod
    def plan_of():
        wanted = {"test": ["v0"], "train": ["x1", "v2"]}
        return make_plan(
            ("classification", "flute", wanted, ["x3", "v4", "v5"]),
            ("retrieval", None, {"test": ["v6", "x7"]}, ["x8"]),
            ("translation", None, {"valid": ["x9"], "train": ["v10"]}, ["v11"]),
        )

    def test_sizes_are_met_from_the_reserve(self, local, tmp_path):
        plan, out = self.plan_of(), tmp_path / "out"
        calls = []
        progress = lambda *counts: calls.append(counts)  # noqa: E731
        report = fetch_plan(plan, LocalDownloader(local), out, quick(), progress)
        columns = ["subset", "split", "wanted", "fetched", "dead", "replaced", "failed", "short"]
        assert report.account[columns].to_numpy().tolist() == [
            ["classification", "test", 1, 1, 0, 0, 0, 0],
            ["classification", "train", 2, 2, 1, 1, 0, 0],
            ["retrieval", "test", 2, 1, 1, 0, 0, 1],
            ["translation", "train", 1, 1, 0, 0, 0, 0],
            ["translation", "valid", 1, 1, 1, 1, 0, 0],
        ]
        assert report.account["instrument"].dropna().unique().tolist() == ["flute"]
        assert report.causes == {"absent": 5, "done": 6}
        assert report.dead_share == pytest.approx(5 / 11)
        assert json.loads(json.dumps(report.summary()))["short"] == 1
        assert calls[-1] == (7, 7)
        assert all(0 <= done <= 7 for done, _ in calls)

        clips = clips_of(plan, out, quick())
        by_video = clips.set_index("group")
        assert by_video["split"].to_dict() == {
            "v0": "test", "v4": "train", "v2": "train", "v6": "test",
            "v10": "train", "v11": "valid",
        }  # fmt: skip
        assert by_video.loc["v4", "instrument"] == "flute"
        assert by_video["instrument"].isna()["v11"]
        assert set(clips["pairing"]) == {"clip"}
        assert set(clips["source"]) == {"audioset"}
        # v5 was not needed
        assert "v5" not in statuses(out)

    def test_the_table_leads_to_the_media(self, local, tmp_path):
        plan, out = self.plan_of(), tmp_path / "out"
        fetch_plan(plan, LocalDownloader(local), out, quick(shard_mb=0.03))
        assert len(list((out / "shards").iterdir())) > 1
        write_clips(out / "clips.parquet", clips_of(plan, out, quick()))
        clips = read_clips(out / "clips.parquet")
        for clip in clips.itertuples():
            number = int(clip.group[1:])
            assert clip.audio.endswith(f".tar!{clip.clip_id}.flac")
            samples = decoding.load_audio(out / clip.audio, 48_000, clip.start_s)
            assert samples.shape == (48_000,)
            # the pitch of second 2, at 2.2 s
            part = samples[:38_000]
            pitch = np.abs(np.fft.rfft(part)).argmax() * 48_000 / len(part)
            assert abs(pitch - (300 + 7 * number + 200)) < 2
            frame = decoding.load_image(out / clip.image).mean(axis=(0, 1))
            assert np.abs(frame - colour(65, 8 * number)).max() < 8

    def test_a_file_that_turns_up_is_taken_after_all(self, local, videos, tmp_path):
        plan, out = retrieval(["v0", "x1"]), tmp_path / "out"
        for _ in range(2):
            fetch_plan(plan, LocalDownloader(local), out, quick())
        # what is absent is noted once
        assert len((out / NAME).read_text().splitlines()) == 2
        (local / "x1.mp4").write_bytes(videos[7])
        report = fetch_plan(plan, LocalDownloader(local), out, quick())
        assert report.fetched == 1
        assert report.account["short"].sum() == 0
        assert "x1" in clips_of(plan, out, quick())["group"].tolist()

    def test_the_same_bytes_twice(self, local, tmp_path):
        (local / "copy.mp4").write_bytes((local / "v0.mp4").read_bytes())
        plan, out = retrieval(["v0", "copy"], ["v1"]), tmp_path / "out"
        report = fetch_plan(plan, LocalDownloader(local), out, quick())
        assert report.causes == {"done": 2, "duplicate": 1}
        assert report.account["fetched"].item() == 2
        clips = clips_of(plan, out, quick())
        assert clips["clip_id"].is_unique
        assert "v1" in clips["group"].tolist()


class TestResuming:
    def test_in_pieces_as_in_one_go(self, local, tmp_path):
        plan = TestReplacements.plan_of()
        whole, pieces = tmp_path / "whole", tmp_path / "pieces"
        fetch_plan(plan, LocalDownloader(local), whole, quick())
        fetched = []
        for _ in range(20):
            report = fetch_plan(plan, LocalDownloader(local), pieces, quick(), stop_after=1)
            fetched.append(report.fetched)
            if not report.fetched:
                break
        assert fetched == [1] * 6 + [0]
        one, other = (
            table_without_places(clips_of(plan, each, quick())) for each in (whole, pieces)
        )
        assert one.to_dict("records") == other.to_dict("records")
        assert sorted(members(whole)) == sorted(members(pieces))

    def test_a_shard_that_was_removed_is_fetched_again(self, local, tmp_path):
        plan, out = retrieval(["v0", "v1", "v2"]), tmp_path / "out"
        fetch_plan(plan, LocalDownloader(local), out, quick(shard_mb=0.03, parallel=1))
        shards = sorted((out / "shards").iterdir())
        assert len(shards) == 3
        shards[1].unlink()
        assert len(clips_of(plan, out, quick())) == 2
        report = fetch_plan(plan, LocalDownloader(local), out, quick())
        assert report.fetched == 1
        assert len(clips_of(plan, out, quick())) == 3

    def test_a_bug_or_a_full_disk_stops_the_run_and_loses_nothing(
        self, local, tmp_path, monkeypatch
    ):
        plan, out = retrieval([f"v{number}" for number in range(6)]), tmp_path / "out"
        real, calls = retry.excerpt, []

        def full(*args, **more):
            calls.append(args)
            if len(calls) == 4:
                raise OSError(28, "No space left on device")
            return real(*args, **more)

        monkeypatch.setattr(retry, "excerpt", full)
        with pytest.raises(AnymodalError, match="no space left"):
            fetch_plan(plan, LocalDownloader(local), out, quick(parallel=1))
        monkeypatch.undo()
        assert [each.name for each in (out / "shards").iterdir()] == ["audioset-000000.tar.partial"]
        report = fetch_plan(plan, LocalDownloader(local), out, quick())
        assert report.fetched == 3
        assert report.account["short"].item() == 0
        assert not (out / ".scratch").exists()


def test_one_run_at_a_time(local, tmp_path):
    plan = retrieval(["v0"])
    with (
        exclusive(tmp_path / "out" / ".lock", "in the way"),
        pytest.raises(AnymodalError, match="another run is fetching"),
    ):
        fetch_plan(plan, LocalDownloader(local), tmp_path / "out", quick())
    assert fetch_plan(plan, LocalDownloader(local), tmp_path / "out", quick()).fetched == 1


class TestOddInput:
    def test_an_empty_plan(self, local, tmp_path):
        plan = retrieval([])
        report = fetch_plan(plan, LocalDownloader(local), tmp_path / "out", quick())
        assert len(report.account) == 0
        assert report.summary()["wanted"] == 0
        assert report.dead_share == 0
        assert len(clips_of(plan, tmp_path / "out", quick())) == 0

    def test_downloaders_are_made(self, local):
        assert isinstance(make_downloader(quick(), local), LocalDownloader)
        require_ytdlp()
        assert make_downloader(quick()).name == "yt-dlp"
        with pytest.raises(AnymodalError, match=r"\{id\}"):
            YtDlpDownloader("http://127.0.0.1/")

    def test_formats_that_were_not_found_are_not_held_against_a_video(self):
        require_ytdlp()
        import yt_dlp

        words = "[youtube] abc: Requested format is not available. Use --list-formats for a list"
        error = ytdlp._meaning(yt_dlp.utils.DownloadError(words))
        assert error.status is Status.FAILED
        assert "JavaScript runtime" in str(error)

    def test_without_ytdlp(self, monkeypatch):
        require_ffmpeg()
        monkeypatch.setitem(__import__("sys").modules, "yt_dlp", None)
        with pytest.raises(AnymodalError, match=r"anymodal\[audioset\]"):
            YtDlpDownloader(ytdlp.YOUTUBE)


PARALLEL = 3
RUN = """
import sys
from pathlib import Path
import pandas as pd
from anymodal.data.audioset.fetch import fetch_plan
from anymodal.data.audioset.ytdlp import YtDlpDownloader
from anymodal.config.params import AudioSetParams

plan = pd.read_pickle(sys.argv[1])
params = AudioSetParams.model_validate_json(sys.argv[2])
fetch_plan(plan, YtDlpDownloader(sys.argv[3]), Path(sys.argv[4]), params)
"""


def killed_plan():
    """Seven places; two of the wanted clips are dead, and the first reserve."""
    return make_plan(
        ("retrieval", None, {"test": ["v0", "dead0", "v1", "bad"]}, ["dead1", "v2", "v3", "v4"]),
        ("translation", None, {"valid": ["v5"], "train": ["v6", "v7"]}, []),
    )


def stored(out) -> Counter[str]:
    """Whole clips in shards of any state, by video."""
    paths = sorted((out / "shards").glob("audioset-*"))
    return Counter(c.facts["video_id"] for path in paths for c in whole_clips(path, path.name))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_is_resumed(site, videos, tmp_path):
    site.pages = {f"v{number}": Page(content) for number, content in enumerate(videos[:8])}
    site.pages["bad"] = Page(b"no video at all " * 500)
    plan = killed_plan()
    plan.to_pickle(tmp_path / "plan.pickle")
    params = quick(parallel=PARALLEL, shard_mb=0.2, tries=2)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    fetch_plan(plan, YtDlpDownloader(site.template), whole, params)
    expected = table_without_places(clips_of(plan, whole, params))
    assert len(expected) == 7

    for page in site.pages.values():
        page.delay_s = 0.02
    command = [sys.executable, "-c", RUN, str(tmp_path / "plan.pickle")]
    command += [params.model_dump_json(), site.template, str(torn)]
    # in the middle, the second time of what the first left; the ledger tells when
    for enough in (2, 5):
        settled = {each["video_id"] for each in ledger_lines(torn)}
        site.requests.clear()
        run = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            limit = time.monotonic() + 30
            while len(ledger_lines(torn)) < enough and time.monotonic() < limit:
                assert run.poll() is None, run.stderr.read().decode()
                time.sleep(0.005)
        finally:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            run.stderr.close()
        assert not set(site.requests) & settled
        assert max(stored(torn).values()) == 1
        assert len(ledger_lines(torn)) < 10

    settled = {each["video_id"] for each in ledger_lines(torn)}
    in_shards = set(stored(torn))
    # a clip may lie in a shard and not be noted yet, never the other way round
    done = {each["video_id"] for each in ledger_lines(torn) if each["status"] == "done"}
    assert done <= in_shards
    assert len(in_shards - done) <= 1

    site.requests.clear()
    report = fetch_plan(plan, YtDlpDownloader(site.template), torn, params)
    assert not set(site.requests) & (settled | in_shards)
    assert report.account["short"].sum() == 0
    assert {each.suffix for each in (torn / "shards").iterdir()} == {".tar"}
    result = table_without_places(clips_of(plan, torn, params))
    assert result.to_dict("records") == expected.to_dict("records")
    assert stored(torn) == stored(whole)
    assert set(stored(torn).values()) == {1}
    assert not (torn / ".scratch").exists()
