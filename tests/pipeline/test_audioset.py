"""From AudioSet's lists to the joint space, as a user types it, on films that the tests make."""

from __future__ import annotations

import json
import shutil

import mlflow
import pandas as pd
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.ffmpeg import find_ffmpeg
from anymodal.data.audioset.plan import read_plan
from anymodal.data.checks import CheckReport
from anymodal.data.clips import read_clips
from helpers import videos
from helpers.project import ROOT, Project

PAIR = "musicnn_mtt+efficientnet_lite0"
SMALL = {
    "audioset__per_class": 3,
    "audioset__retrieval": 6,
    "audioset__translation": 12,
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
def cinema(tmp_path_factory):
    """Lists in `lists` and a film for every row that qualifies in `films`; video → class."""
    try:
        find_ffmpeg()
    except AnymodalError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("cinema")
    classes = videos.write_lists(folder / "lists", per_class=6, others=12)
    (folder / "films").mkdir()
    for number, (film, name) in enumerate(classes.items()):
        videos.class_video(folder / "films" / f"{film}.mp4", name, number)
    return folder


@pytest.fixture(scope="module")
def fetched(cinema, tmp_path_factory):
    """A project whose `data` was fetched with three dead films, one silent and one blank."""
    project = Project.copy(tmp_path_factory.mktemp("fetched") / "project", **SMALL)
    words = ["anymodal", "audioset", str(cinema / "lists"), "data"]
    told = project.run(*words, "--plan-only")
    assert "the same command without --plan-only" in told.stdout
    assert "1 row(s) skipped: not four fields" in told.stderr
    plan = read_plan(project.folder / "data" / "plan.parquet").table
    wanted = plan[plan["role"] == "wanted"]
    banjo = wanted[(wanted["subset"] == "classification") & (wanted["instrument"] == "banjo")]
    translation = wanted[wanted["subset"] == "translation"]["video_id"].tolist()
    project.dead = [*banjo["video_id"][:2], translation[0]]
    project.silent, project.blank = translation[1:3]
    project.films = cinema / "there"
    shutil.copytree(cinema / "films", project.films)
    for film in project.dead:
        (project.films / f"{film}.mp4").unlink()
    videos.class_video(project.films / f"{project.silent}.mp4", "banjo", 1, silent=True)
    videos.class_video(project.films / f"{project.blank}.mp4", "banjo", 2, blank=True)
    project.told = project.run(*words, "--local", str(project.films))
    project.run("dvc", "add", "data")
    project.run("dvc", "repro", "retrieve")
    return project


def clips_of(project, path="artifacts/clips.parquet") -> pd.DataFrame:
    return read_clips(project.folder / path)


@pytest.mark.slow
def test_the_dead_are_replaced_and_the_account_tells(fetched):
    facts = json.loads((fetched.folder / "data/audioset.json").read_text())
    assert facts["fetch"]["causes"] == {"absent": 3, "done": 72}
    assert (facts["fetch"]["dead"], facts["fetch"]["replaced"], facts["fetch"]["short"]) == (
        3,
        3,
        0,
    )
    assert len(facts["lists"]) == 3 and facts["dropped"] == 0
    clips = clips_of(fetched)
    assert len(clips) == 54 + 6 + 12
    assert not set(fetched.dead) & set(clips["group"]) and clips["group"].is_unique
    sizes = clips.groupby(["subset", "split"]).size().to_dict()
    assert sizes["classification", "test"] == 18 and sizes["retrieval", "test"] == 6
    assert sizes["translation", "train"] + sizes["translation", "valid"] == 12
    assert "72 clips (54 of classification" in fetched.told.stdout


@pytest.mark.slow
def test_every_result_says_clip_paired(fetched):
    facts = json.loads((fetched.folder / "artifacts/dataset.json").read_text())
    assert (facts["name"], facts["pairing"], facts["source"]) == ("audioset", "clip", "audioset")
    assert len(facts["classes"]) == 18
    assert sum(line["taken"] for line in facts["account"]) == 72
    training = json.loads(
        (fetched.folder / f"artifacts/projections/{PAIR}/training.json").read_text()
    )
    assert training["pairing"] == "clip"
    assert training["pairs_per_epoch"] == int(
        (
            (clips_of(fetched)["subset"] == "translation") & (clips_of(fetched)["split"] == "train")
        ).sum()
    )
    scores = json.loads((fetched.folder / f"artifacts/retrieval/{PAIR}.json").read_text())
    assert (scores["pairing"], scores["n_audio"], scores["n_image"]) == ("clip", 6, 6)
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
def test_sound_and_picture_of_a_row_line_up(fetched):
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
    assert results["tiny"].observed == {"unexpected": 72, "of": 72}
    assert {"silent", "blank", "tiny"} <= {warning.name for warning in report.warnings}
    assert "skew:both" in results and len(report.counts) > 18


@pytest.mark.slow
def test_a_broken_expectation_stops_dvc_repro_and_names_the_rows(fetched):
    path = fetched.folder / "data/clips.parquet"
    state = [
        path,
        *(fetched.folder / n for n in ("data.dvc", "dvc.lock", "artifacts/dataset.json")),
    ]
    before = [each.read_bytes() for each in state]
    table = pd.read_parquet(path)
    rows = table.index[table["subset"] == "retrieval"][:2]
    names = table.loc[rows, "clip_id"].tolist()
    table.loc[rows, "image"] = table.loc[rows[::-1], "image"].to_numpy()
    path.unlink()  # DVC may have it linked to its cache
    table.to_parquet(path)
    try:
        answer = fetched.run("dvc", "repro", "embed", check=False)
    finally:
        for each, content in zip(state, before, strict=True):
            each.unlink()
            each.write_bytes(content)
        fetched.run("dvc", "checkout", "--force", "dataset", "check")
    assert answer.returncode
    (line,) = [each for each in answer.stderr.splitlines() if each.startswith("error:")]
    assert "check same_second failed" in line and all(name in line for name in names)
    assert "Running stage 'embed'" not in answer.stdout


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
    assert len(read_clips(fetched.folder / "data/clips.parquet")) == 72
