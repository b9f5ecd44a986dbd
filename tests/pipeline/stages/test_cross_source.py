"""The stage `across` on the bundled pack: one artifact, one run, and a kill in between."""

import hashlib
import shutil
import signal
import time

import mlflow
import pandas as pd
import pytest
import yaml

from anymodal.classification import macro_f1
from anymodal.dataset.clips import read_clips
from anymodal.storage import read_json
from project import Project


@pytest.fixture(scope="module")
def told(finished):
    return read_json(finished.folder / "artifacts/across/across.json")


@pytest.fixture(scope="module")
def predictions(finished):
    return pd.read_parquet(finished.folder / "artifacts/across/predictions.parquet")


def test_sounds_fall_across_sources_and_pictures_say_why_they_are_not_measured(told):
    assert (told["dataset"], told["pairing"], told["seeds"]) == ("instruments", "class", 1)
    sounds, pictures = told["targets"]["audio"], told["targets"]["image"]
    assert pictures["missing"].keys() == {"matched", "across"}
    assert pictures["missing"]["across"] == "all pictures are of one source (kaggle30)"
    assert not sounds["missing"]
    mean = {
        (one["protocol"], one["system"], one["regime"]): one["mean"] for one in sounds["scores"]
    }
    for key in (("MMT", "zero-shot"), ("MMT", "all"), ("SMA", "all")):
        assert mean["within", *key] > mean["across", *key] + 0.1
    (left,) = sounds["left_out"]
    assert left["instrument"] == "trumpet" and "zoltantrumpet" in left["reason"]
    assert "trumpet" not in sounds["classes"] and sounds["chance"] == pytest.approx(1 / 9)


def test_folds_of_across_share_no_source_and_cover_all_rows(told):
    sounds = told["targets"]["audio"]
    folds = [fold for fold in sounds["folds"] if fold["protocol"] == "across"]
    assert len(folds) == 2
    assert not set(folds[0]["sources"]) & set(folds[1]["sources"])
    assert sum(fold["test_rows"] for fold in folds) == sounds["test_rows"]
    assert sum(one["rows"] for one in sounds["by_source"]) == sounds["test_rows"]


def test_scores_follow_from_the_predictions(finished, told, predictions):
    keys = ["target", "protocol", "system", "regime", "seed"]
    counts = predictions.groupby(keys)["clip_id"].agg(["size", "nunique"])
    for target, found in told["targets"].items():
        assert (counts.loc[target] == found["test_rows"]).all().all()
        for one in found["scores"]:
            rows = predictions[
                (predictions["target"] == target)
                & (predictions["protocol"] == one["protocol"])
                & (predictions["system"] == one["system"])
                & (predictions["regime"] == one["regime"])
            ]
            score = macro_f1(rows["truth"], rows["predicted"], found["classes"])
            assert one["mean"] == pytest.approx(score)
    clips = read_clips(finished.folder / "artifacts/clips.parquet").set_index("clip_id")
    assert set(clips.loc[predictions["clip_id"], "subset"]) == {"classification"}


def test_the_run_holds_every_protocol_and_the_parent_what_is_left(finished, told):
    uri = f"sqlite:///{finished.folder}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("anymodal").experiment_id
    runs = client.search_runs([experiment])
    (own,) = (run for run in runs if run.data.tags.get("anymodal.stage") == "across")
    (parent,) = (run for run in runs if "anymodal.pipeline" in run.data.tags)
    (score,) = (
        one["mean"]
        for one in told["targets"]["audio"]["scores"]
        if (one["protocol"], one["system"], one["regime"]) == ("across", "MMT", "zero-shot")
    )
    name = "MMT-zero-shot-audio"
    assert own.data.metrics[f"macro_f1_across/{name}"] == pytest.approx(score)
    assert own.data.metrics[f"macro_f1_within/{name}"] > score
    assert parent.data.metrics[f"macro_f1_across/{name}"] == pytest.approx(score)
    assert f"macro_f1_within/{name}" not in parent.data.metrics


def copied(finished, folder, **across):
    """The finished project before its stage `across`, with little to train."""
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "data"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["across"] |= across
    params["translate"]["max_epochs"] = 3
    params["classify"] |= {"trees": 5, "bootstrap": 100}
    # the store of the copy names the files of the original, and cards are among them
    params["tracking"]["register_models"] = False
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.rmtree(folder / "artifacts/across")
    return Project(folder)


def digests(project):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (project.folder / "artifacts/across").iterdir()
    }


def test_a_killed_run_goes_on_and_ends_in_the_same_results(finished, tmp_path):
    whole = copied(finished, tmp_path / "whole")
    whole.run("anymodal", "across")

    project = copied(finished, tmp_path / "killed")
    scratch = project.folder / ".anymodal/across"

    def done():
        return list(scratch.glob("*/seed-0/history.json"))

    process = project.start("anymodal", "across")
    deadline = time.monotonic() + 300
    while not done():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in done()}
    assert kept and not (project.folder / "artifacts/across/across.json").exists()

    process = project.start("anymodal", "across")
    while len(done()) <= len(kept):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert process.wait() == 0
    assert digests(project) == digests(whole) and len(digests(whole)) == 2
    assert not scratch.exists()


def test_switched_off_it_says_so_and_trains_nothing(finished, tmp_path):
    project = copied(finished, tmp_path / "project", enabled=False)
    out = project.run("anymodal", "across").stdout
    assert "switched off (across.enabled)" in " ".join(out.split())
    told = read_json(project.folder / "artifacts/across/across.json")
    assert not any(found.get("scores") for found in told["targets"].values())
    project.run("anymodal", "report")
