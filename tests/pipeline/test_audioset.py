"""From AudioSet's lists to the joint space, as a user types it, on videos that the tests make."""

from __future__ import annotations

import json
import shutil

import mlflow
import pandas as pd
import pytest

from anymodal.config.params import load_params
from anymodal.data.audioset.lists import published_lists
from anymodal.data.checks import CheckReport
from anymodal.data.clips import read_clips, write_clips
from anymodal.pipeline.acquire import make_plan
from anymodal.pipeline.context import Context
from helpers.fetch_plans import require_ffmpeg
from helpers.project import ROOT, Project
from helpers.videos import class_video, write_lists

PAIR = "musicnn_mtt+efficientnet_lite0"
SMALL = {
    "audioset__per_class": 3,
    "audioset__retrieval": 4,
    "audioset__translation": 8,
    "audioset__reserve": 0.5,
    "audioset__translation_valid": 0.25,
    "audioset__parallel": 2,
    "check__min_per_class": 1,
    "dataset__source": "audioset",
    "embed__audio": ["musicnn_mtt"],
    "embed__image": ["efficientnet_lite0"],
    "embed__workers": 1,
    "translate__seeds": 1,
    "translate__max_epochs": 5,
    "classify__seeds": 1,
    "tracking__register_models": False,
}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """A project whose `data` was fetched with three dead videos, one silent and one blank."""
    require_ffmpeg()
    folder = tmp_path_factory.mktemp("fetched")
    classes = write_lists(folder / "lists", per_class=5, others=16)
    project = Project.copy(folder / "project", **SMALL)
    data, said = project.folder / "data", []
    params = load_params(project.folder / "params.yaml")
    context = Context(project.workspace, params, say=said.append)
    plan = make_plan(context, published_lists(folder / "lists"), data).table
    assert "1 row(s) skipped: not four fields" in said[0]
    wanted = plan[plan["role"] == "wanted"]
    banjo = wanted[(wanted["subset"] == "classification") & (wanted["instrument"] == "banjo")]
    translation = wanted[wanted["subset"] == "translation"]["video_id"].tolist()
    project.dead = [*banjo["video_id"][:2], translation[0]]
    project.silent, project.blank = translation[1:3]
    videos = folder / "videos"
    videos.mkdir()
    for number, (video, name) in enumerate(classes.items()):
        if video not in project.dead:
            faults = {"silent": video == project.silent, "blank": video == project.blank}
            class_video(videos / f"{video}.mp4", name, number, **faults)
    words = ["anymodal", "audioset", str(folder / "lists"), "data", "--local", str(videos)]
    project.stdout = project.run(*words).stdout
    project.run("dvc", "add", "data")
    project.run("dvc", "repro", "retrieve")
    return project


def clips_of(project, path="artifacts/clips.parquet") -> pd.DataFrame:
    return read_clips(project.folder / path)


@pytest.mark.slow
def test_the_dead_are_replaced_and_the_account_tells(fetched):
    facts = json.loads((fetched.folder / "data/audioset.json").read_text())
    assert facts["fetch"]["causes"] == {"absent": 3, "done": 66}
    assert [facts["fetch"][name] for name in ("dead", "replaced", "short")] == [3, 3, 0]
    assert len(facts["lists"]) == 3 and facts["dropped"] == 0
    clips = clips_of(fetched)
    assert len(clips) == 54 + 4 + 8
    assert not set(fetched.dead) & set(clips["group"]) and clips["group"].is_unique
    sizes = clips.groupby(["subset", "split"]).size().to_dict()
    assert sizes["classification", "test"] == 18 and sizes["retrieval", "test"] == 4
    assert sizes["translation", "train"] + sizes["translation", "valid"] == 8
    assert "66 clips (54 of classification" in fetched.stdout


@pytest.mark.slow
def test_every_result_says_clip_paired(fetched):
    facts = json.loads((fetched.folder / "artifacts/dataset.json").read_text())
    assert (facts["name"], facts["pairing"], facts["source"]) == ("audioset", "clip", "audioset")
    assert len(facts["classes"]) == 18
    assert sum(line["taken"] for line in facts["account"]) == 66
    training = json.loads(
        (fetched.folder / f"artifacts/projections/{PAIR}/training.json").read_text()
    )
    assert training["pairing"] == "clip"
    clips = clips_of(fetched)
    trained = (clips["subset"] == "translation") & (clips["split"] == "train")
    assert training["pairs_per_epoch"] == trained.sum()
    scores = json.loads((fetched.folder / f"artifacts/retrieval/{PAIR}.json").read_text())
    assert (scores["pairing"], scores["n_audio"], scores["n_image"]) == ("clip", 4, 4)
    uri = f"sqlite:///{fetched.folder}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("anymodal").experiment_id])
    by_stage = {run.data.tags.get("anymodal.stage"): run for run in runs}
    assert {"audioset", "dataset", "check", "embed", "translate", "retrieve"} <= set(by_stage)
    ours = by_stage["audioset"]
    assert ours.data.tags["pairing"] == "clip" and ours.data.metrics["fetch/replaced"] == 3
    assert ours.data.metrics["causes/absent"] == 3
    assert by_stage["check"].data.metrics["checks/failed"] == 0


@pytest.mark.slow
def test_audio_and_image_of_a_row_line_up(fetched):
    clips = clips_of(fetched)
    for encoder in ("musicnn_mtt", "efficientnet_lite0"):
        index = pd.read_parquet(fetched.folder / f"artifacts/embeddings/{encoder}.parquet")
        assert index["clip_id"].tolist() == clips["clip_id"].tolist() and (index["row"] >= 0).all()
    stems = clips["audio"].str.removesuffix(".flac"), clips["image"].str.removesuffix(".jpg")
    assert (stems[0] == stems[1]).all()
    quality = pd.read_parquet(fetched.folder / "artifacts/quality.parquet")
    assert (quality["video_id"] == clips["group"]).all() and quality["damage"].isna().all()
    assert quality["offset_s"].between(0, 1).all() and quality["unreadable"].isna().all()


@pytest.mark.slow
def test_silent_blank_and_tiny_clips_are_counted_and_named(fetched):
    report = CheckReport.read(fetched.folder / "artifacts/checks/checks.json", "check")
    results = {result.name: result for result in report.results}
    clips = clips_of(fetched).set_index("group")["clip_id"]
    assert report.ok and results["same_second"].success and results["measured"].success
    assert results["silent"].unexpected == (clips[fetched.silent],)
    assert results["blank"].unexpected == (clips[fetched.blank],)
    assert results["tiny"].observed == {"unexpected": 66, "of": 66}
    assert {"silent", "blank", "tiny"} <= {warning.name for warning in report.warnings}
    assert "skew:both" in results and len(report.counts) > 18


@pytest.mark.slow
def test_a_broken_expectation_names_the_rows(fetched, tmp_path):
    project = fetched.duplicate(tmp_path / "copy")
    table = clips_of(project)
    rows = table.index[table["subset"] == "retrieval"][:2]
    table.loc[rows, "image"] = table.loc[rows[::-1], "image"].to_numpy()
    write_clips(project.folder / "artifacts/clips.parquet", table)
    answer = project.run("anymodal", "check", check=False)
    assert answer.returncode
    (line,) = [each for each in answer.stderr.splitlines() if each.startswith("error:")]
    assert "check same_second failed" in line
    assert all(name in line for name in table.loc[rows, "clip_id"])


@pytest.mark.slow
def test_how_media_are_fetched_reruns_nothing(fetched):
    params = fetched.folder / "params.yaml"
    before = params.read_text()
    try:
        params.write_text(before.replace("parallel: 2", "parallel: 3"))
        answer = fetched.run("dvc", "repro", "--dry", "retrieve")
    finally:
        params.write_text(before)
    assert "Running stage" not in answer.stdout


@pytest.mark.slow
def test_git_and_dvc_switch_between_the_pack_and_audioset(fetched, bundled):
    def git(*words):
        fetched.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words)

    ours = (fetched.folder / "data.dvc").read_bytes()
    git("add", "data.dvc", "params.yaml")
    git("commit", "--quiet", "--message", "AudioSet")
    git("branch", "audioset")
    shutil.copy(ROOT / "data.dvc", fetched.folder / "data.dvc")
    git("commit", "--quiet", "--all", "--message", "the pack")
    fetched.run("dvc", "pull", "--force", "data.dvc")
    assert not (fetched.folder / "data/shards").exists()
    assert (fetched.folder / "data/DATASHEET.md").is_file()
    git("checkout", "--quiet", "audioset")
    fetched.run("dvc", "checkout", "data.dvc")
    assert (fetched.folder / "data.dvc").read_bytes() == ours
    assert (fetched.folder / "data/shards").is_dir()
    assert len(read_clips(fetched.folder / "data/clips.parquet")) == 66
