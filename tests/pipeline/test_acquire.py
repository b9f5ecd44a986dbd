"""One command from lists to clips: what it refuses, goes on with, and says."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from anymodal.config.params import Params
from anymodal.core.errors import AnymodalError
from anymodal.core.workspace import Workspace
from anymodal.data.audioset.plan import read_plan
from anymodal.data.audioset.results import rebalance
from anymodal.data.audioset.shards import trace
from anymodal.data.audioset.ytdlp import YtDlpDownloader
from anymodal.data.clips import COLUMNS, read_clips
from anymodal.ontology.instruments import INSTRUMENTS
from anymodal.pipeline.acquire import acquire
from anymodal.pipeline.context import Context
from helpers import videos
from helpers.fetch_plans import require_ffmpeg, require_ytdlp
from helpers.fetch_site import Page, Site

QUICK = {"parallel": 4, "tries": 2, "timeout_s": 20, "stall_s": 5, "backoff_s": 0.01, "outage": 6}


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Folder of lists, and the class of every video that qualifies."""
    folder = tmp_path_factory.mktemp("audioset") / "lists"
    return folder, videos.write_lists(folder, per_class=4, others=6)


@pytest.fixture(scope="module")
def source(lists):
    """A folder with `lists` and their `videos`."""
    require_ffmpeg()
    folder, classes = lists
    (folder.parent / "videos").mkdir()
    for number, (video, name) in enumerate(classes.items()):
        videos.class_video(folder.parent / "videos" / f"{video}.mp4", name, number)
    return folder.parent


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def context(said=None, **audioset) -> Context:
    small = {"per_class": 3, "retrieval": 1, "translation": 3, "reserve": 0.2, **QUICK}
    params = Params.model_validate({"audioset": {**small, **audioset}})
    return Context(Workspace(), params, say=(said if said is not None else []).append)


def wanted(out, subset, instrument=None) -> list[str]:
    table = read_plan(out / "plan.parquet").table
    mine = (table["role"] == "wanted") & (table["subset"] == subset)
    if instrument:
        mine &= table["instrument"] == instrument
    return table.loc[mine, "video_id"].tolist()


def test_missing_lists_are_named(here, lists):
    (here / "lists").mkdir()
    with pytest.raises(AnymodalError) as caught:
        acquire(context(), here / "lists", here / "out")
    line = str(caught.value)
    assert "unbalanced_train_segments.csv, balanced_train_segments.csv, eval_segments" in line
    assert "research.google.com/audioset/download.html" in line and str(here / "lists") in line
    name = "unbalanced_train_segments.csv"
    (here / "lists" / name).write_bytes((lists[0] / name).read_bytes())
    said: list[str] = []
    with pytest.raises(AnymodalError, match=r"too short: .*accordion \d of 3.*--allow-short"):
        acquire(context(said), here / "lists", here / "out", plan_only=True)
    assert "has no balanced_train_segments.csv, eval_segments.csv" in said[0]
    assert not (here / "out" / "plan.parquet").exists()


def test_another_plan_is_refused_and_drawn_only_when_asked_for(here, lists):
    lists, out = lists[0], here / "out"
    assert acquire(context(), lists, out, plan_only=True) is None
    before = (out / "plan.parquet").read_bytes()
    acquire(context(parallel=1, give_up=3), lists, out, plan_only=True)
    assert (out / "plan.parquet").read_bytes() == before
    with pytest.raises(AnymodalError, match=r"audioset\.translation 3 → 4.*--replan"):
        acquire(context(translation=4), lists, out, plan_only=True)
    with pytest.raises(AnymodalError, match=r"short_side 256, not 128; use another folder"):
        acquire(context(short_side=128), lists, out, plan_only=True, replan=True)
    assert (out / "plan.parquet").read_bytes() == before
    (out / "clips.parquet").write_bytes(b"of the plan before")
    acquire(context(translation=4), lists, out, plan_only=True, replan=True)
    assert len(wanted(out, "translation")) == 4 and not (out / "clips.parquet").exists()
    (out / "plan.json").unlink()
    with pytest.raises(AnymodalError, match=r"has no plan\.json"):
        acquire(context(translation=4), lists, out, plan_only=True)


@pytest.mark.slow
def test_a_class_that_ends_short_stops_unless_it_is_allowed(here, source):
    lists, out, there = source / "lists", here / "out", here / "videos"
    acquire(context(reserve=0.0), lists, out, plan_only=True)
    there.mkdir()
    dead = wanted(out, "classification", "banjo")[0]
    for video in (source / "videos").iterdir():
        if video.stem != dead:
            (there / video.name).hardlink_to(video)
    shown: dict[str, pd.DataFrame] = {}
    with pytest.raises(AnymodalError, match="short of clips .*banjo 0 of 1.*--allow-short"):
        acquire(context(reserve=0.0), lists, out, local=there, show=shown.__setitem__)
    account = shown["Fetched"].set_index(["subset", "instrument"])
    assert account.loc[("classification", "banjo"), "short"] == 1
    assert account.loc[("all", "all"), ["wanted", "fetched"]].tolist() == [58, 57]
    # all that could be had is kept, and nothing claims to be complete
    assert not (out / "clips.parquet").exists()
    assert len((out / "ledger.jsonl").read_text().splitlines()) == 58
    # the only banjo of a split is gone: there is no balanced subset without it
    with pytest.raises(AnymodalError, match=r"nothing could be fetched of banjo \(test\)"):
        acquire(context(reserve=0.0), lists, out, local=there, allow_short=True)
    (there / f"{dead}.mp4").hardlink_to(source / "videos" / f"{dead}.mp4")
    clips = acquire(context(reserve=0.0), lists, out, local=there)
    assert clips is not None and len(clips) == 58
    assert json.loads((out / "audioset.json").read_text())["rows"] == 58


@pytest.mark.slow
def test_faults_on_the_line(here, source):
    """What is gone is replaced; a network that is down stops the run, which can be gone on with."""
    require_ytdlp()
    site = Site()
    try:
        downloader = YtDlpDownloader(site.template, timeout_s=20, stall_s=5)
        lists, out = source / "lists", here / "out"
        acquire(context(), lists, out, plan_only=True)
        for video in (source / "videos").iterdir():
            site.pages[video.stem] = Page(video.read_bytes(), fault="503", times=None)
        with pytest.raises(AnymodalError, match="6 clips in a row failed.*network may be down"):
            acquire(context(), lists, out, downloader=downloader)
        assert not (out / "clips.parquet").exists()
        for page in site.pages.values():
            page.fault = ""
        gone = [wanted(out, "classification", name)[0] for name in ("cello", "flute")]
        for video in gone:
            site.pages[video] = Page(fault="404")
        clips = acquire(context(), lists, out, downloader=downloader)
        assert clips is not None and len(clips) == 58 and not set(gone) & set(clips["group"])
        fetch = json.loads((out / "audioset.json").read_text())["fetch"]
        assert fetch["causes"] == {"done": 58, "gone": 2} and fetch["replaced"] == 2
        requests = site.requests.total()
        again = acquire(context(), lists, out, downloader=downloader)
        pd.testing.assert_frame_equal(again, clips)
        assert site.requests.total() == requests
        pd.testing.assert_frame_equal(read_clips(out / "clips.parquet"), clips)
        _traces(out, clips)
    finally:
        site.close()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(here, source):
    settings = context(parallel=1).params.model_dump(mode="json")
    (here / "params.yaml").write_text(json.dumps(settings))
    words = [sys.executable, "-m", "anymodal", "audioset", str(source / "lists"), "out"]
    words += ["--local", str(source / "videos")]
    ledger = here / "out" / "ledger.jsonl"

    def lines() -> int:
        return len(ledger.read_text().splitlines()) if ledger.is_file() else 0

    with subprocess.Popen(
        words,
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell that starts the tests in the background has them ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        end = time.monotonic() + 60
        while lines() < 3 and run.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and b"Traceback" not in said
    assert said.decode().splitlines()[-1] == (
        "stopped; what was fetched is in out; the same command resumes"
    )
    before = lines()
    assert 3 <= before < 58 and not (here / "out" / "clips.parquet").exists()
    resumed: list[str] = []
    acquire(context(resumed), source / "lists", here / "out", local=source / "videos")
    assert lines() == 58
    assert any(f"{58 - before} fetched in this run" in line for line in resumed)


def _traces(out, clips):
    first, second = clips.iloc[0], clips.iloc[1]

    def at(name):
        return str(out / name)

    whole = trace(first["clip_id"], at(first["audio"]), at(first["image"]))
    assert whole.video_id == first["group"] and 0 <= whole.offset_s <= 1 and whole.damage is None
    crossed = trace(first["clip_id"], at(first["audio"]), at(second["image"]))
    assert crossed.damage == "its files are not those fetched"
    absent = trace("0" * 16, at(first["audio"]), at(first["image"]))
    assert "holds no" in absent.damage
    assert trace(first["clip_id"], at(first["audio"]), None).damage
    assert "not members of a shard" in trace(first["clip_id"], "a.flac", "a.jpg").damage


def unbalanced_table(counts: dict[str, int]) -> pd.DataFrame:
    rows = [("translation", "train", None)] * 5
    for name in INSTRUMENTS:
        for split in ("train", "valid", "test"):
            rows += [("classification", split, name)] * counts.get(f"{name}/{split}", 4)
    random.Random(0).shuffle(rows)
    table = pd.DataFrame(rows, columns=["subset", "split", "instrument"])
    table["clip_id"] = [f"{number:04d}" for number in range(len(table))]
    return table.reindex(columns=list(COLUMNS))


def test_rebalancing_keeps_the_first_of_each_class():
    table = unbalanced_table({"banjo/train": 2, "violin/train": 3, "cello/test": 1})
    kept, dropped = rebalance(table)
    sizes = kept.groupby(["split", "instrument"]).size().unstack()
    assert (sizes.loc["train"] == 2).all() and (sizes.loc["test"] == 1).all()
    assert (sizes.loc["valid"] == 4).all() and dropped == len(table) - len(kept) == 16 * 2 + 1 + 51
    assert (kept["subset"] == "translation").sum() == 5
    mine = table[(table["instrument"] == "drums") & (table["split"] == "train")]["clip_id"]
    ours = kept[(kept["instrument"] == "drums") & (kept["split"] == "train")]["clip_id"]
    assert ours.tolist() == mine.tolist()[:2]
    again, none = rebalance(kept)
    assert none == 0
    pd.testing.assert_frame_equal(again, kept)


def test_rebalancing_refuses_an_empty_class():
    with pytest.raises(AnymodalError, match=r"nothing could be fetched of banjo \(valid\); run"):
        rebalance(unbalanced_table({"banjo/valid": 0}))
    with pytest.raises(AnymodalError, match="nothing could be fetched"):
        rebalance(unbalanced_table({})[:0])
