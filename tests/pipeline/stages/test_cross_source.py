"""Stage `cross_source` on the bundled pack: one artifact, one run, and a kill in between."""

import hashlib
import shutil
import signal
import time

import pandas as pd
import pytest

from anymodal.data.clips import read_clips
from anymodal.evaluation.cross_source_scores import CrossSourceResult
from anymodal.evaluation.forests import macro_f1


def result_of(project):
    return CrossSourceResult.read(project.workspace.cross_source, "cross_source")


@pytest.fixture(scope="module")
def result(finished):
    return result_of(finished)


@pytest.fixture(scope="module")
def predictions(finished):
    return pd.read_parquet(finished.workspace.cross_source_predictions)


def test_audio_falls_across_sources_and_images_have_a_reason(result):
    assert (result.dataset, result.pairing, result.seeds) == ("instruments", "class", 1)
    audio, image = result.targets["audio"], result.targets["image"]
    assert image.missing.keys() == {"size_matched", "cross_source"}
    assert image.missing["cross_source"] == "all image clips are of one source (kaggle30)"
    assert not audio.missing
    for key in (("MMT", "zero-shot"), ("MMT", "all"), ("SMA", "all")):
        assert audio.score("within", *key).mean > audio.score("cross_source", *key).mean + 0.1
    (left,) = audio.left_out
    assert left.instrument == "trumpet" and "zoltantrumpet" in left.reason
    assert "trumpet" not in audio.classes and audio.chance == pytest.approx(1 / 9)


def test_folds_share_no_source_and_cover_all_rows(result):
    audio = result.targets["audio"]
    first, second = (fold for fold in audio.folds if fold.protocol == "cross_source")
    assert not set(first.sources) & set(second.sources)
    assert first.test_rows + second.test_rows == audio.test_rows
    assert sum(source.rows for source in audio.by_source) == audio.test_rows


def test_scores_follow_from_the_predictions(finished, result, predictions):
    keys = ["target", "protocol", "system", "regime", "seed"]
    counts = predictions.groupby(keys)["clip_id"].agg(["size", "nunique"])
    rows = predictions.set_index(keys[:-1]).sort_index()
    for target, measured in result.targets.items():
        assert (counts.loc[target] == measured.test_rows).all().all()
        for score in measured.scores:
            own = rows.loc[(target, score.protocol, score.system, score.regime)]
            expected = macro_f1(own["truth"], own["predicted"], measured.classes)
            assert score.mean == pytest.approx(expected)
    clips = read_clips(finished.workspace.clips).set_index("clip_id")
    assert set(clips.loc[predictions["clip_id"], "subset"]) == {"classification"}


def test_the_run_has_every_protocol_and_the_parent_the_one_across(finished, result):
    runs = finished.runs()
    (own,) = (run for run in runs if run.data.tags.get("anymodal.stage") == "cross_source")
    (parent,) = (run for run in runs if "anymodal.pipeline" in run.data.tags)
    score = result.targets["audio"].score("cross_source", "MMT", "zero-shot").mean
    name = "MMT-zero-shot-audio"
    assert own.data.metrics[f"macro_f1_cross_source/{name}"] == pytest.approx(score)
    assert own.data.metrics[f"macro_f1_within/{name}"] > score
    assert parent.data.metrics[f"macro_f1_cross_source/{name}"] == pytest.approx(score)
    assert f"macro_f1_within/{name}" not in parent.data.metrics


def copied(finished, folder, **overrides):
    """The finished project before its stage `cross_source`, with little to train."""
    small = {"translate__max_epochs": 3, "classify__trees": 5, "classify__bootstrap": 50}
    project = finished.duplicate(folder, **small, **overrides)
    shutil.rmtree(project.workspace.cross_source.parent)
    return project


def digests(project):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in project.workspace.cross_source.parent.iterdir()
    }


def test_a_killed_run_resumes_and_ends_in_the_same_results(finished, tmp_path):
    whole = copied(finished, tmp_path / "whole")
    whole.run("anymodal", "cross_source")

    project = copied(finished, tmp_path / "killed")
    scratch = project.workspace.scratch / "cross_source"

    def done():
        return list(scratch.glob("*/seed-0/history.json"))

    process = project.start("anymodal", "cross_source")
    deadline = time.monotonic() + 300
    while not done():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in done()}
    assert kept and not project.workspace.cross_source.exists()

    process = project.start("anymodal", "cross_source")
    while len(done()) <= len(kept):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert process.wait() == 0
    assert digests(project) == digests(whole) and len(digests(whole)) == 2
    assert not scratch.exists()


def test_switched_off_it_trains_nothing(finished, tmp_path, capsys):
    project = copied(finished, tmp_path / "project", cross_source__enabled=False)
    project.invoke("cross_source")
    assert "switched off (cross_source.enabled)" in capsys.readouterr().out
    assert not any(measured.scores for measured in result_of(project).targets.values())
    project.invoke("report")
