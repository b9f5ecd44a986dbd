"""A run that is killed, and the one after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from anymodal.data.audioset.fetch import fetch_plan
from anymodal.data.audioset.ledger import NAME
from anymodal.data.audioset.results import clips_of
from anymodal.data.audioset.shards import whole_clips
from anymodal.data.audioset.ytdlp import YtDlpDownloader
from helpers.fetch_plans import (
    different_videos,
    make_plan,
    quick,
    require_ffmpeg,
    require_ytdlp,
    table_without_places,
)
from helpers.fetch_site import Page, Site

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


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    require_ffmpeg()
    return different_videos(tmp_path_factory.mktemp("made"), 8, seconds=3.5)


@pytest.fixture
def site(videos):
    require_ytdlp()
    site = Site()
    site.pages = {f"v{number}": Page(content) for number, content in enumerate(videos)}
    yield site
    site.close()


def make():
    """Seven places; two of the wanted clips are dead, and the first reserve."""
    return make_plan(
        (
            "retrieval",
            None,
            {"test": ["v0", "dead0", "v1", "bad"]},
            ["dead1", "v2", "v3", "v4"],
        ),
        ("translation", None, {"valid": ["v5"], "train": ["v6", "v7"]}, []),
    )


def ledger_lines(out) -> list[dict]:
    path = out / NAME
    if not path.exists():
        return []
    lines = path.read_bytes()
    return [json.loads(each) for each in lines[: lines.rfind(b"\n") + 1].splitlines()]


def stored(out) -> Counter[str]:
    """Whole clips in shards of any state, by video."""
    found = Counter()
    for path in sorted((out / "shards").glob("audioset-*")):
        found.update(clip.facts["video_id"] for clip in whole_clips(path, path.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_is_gone_on_with(site, tmp_path):
    site.pages["bad"] = Page(b"no video at all " * 500)
    plan = make()
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
    assert sorted(each.suffix for each in (torn / "shards").iterdir()) == [".tar"] * len(
        list((torn / "shards").iterdir())
    )
    result = table_without_places(clips_of(plan, torn, params))
    assert result.to_dict("records") == expected.to_dict("records")
    assert stored(torn) == stored(whole)
    assert set(stored(torn).values()) == {1}
    assert not (torn / ".scratch").exists()
