"""`anymodal tune` on a made-up project: what it reads, writes and records."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.classifier.reference import Reference
from anymodal.config.params import load_params
from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.projection import load_projection
from anymodal.tracking import pipeline_runs
from anymodal.tuning.study import counted
from anymodal.tuning.tune import tune
from helpers.toy import context_of, toy

pytestmark = pytest.mark.slow

RATE = {"low": 0.00001, "high": 0.01, "log": True}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(pipeline_runs.PIPELINE_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One MLflow store for all tests of this file: making its tables takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    # two processes that make MLflow's tables at once get in each other's way
    mlflow.MlflowClient(uri, uri).search_experiments()
    return uri


def make(folder, store, **params):
    return toy(folder, {"tracking__uri": store, "tracking__experiment": folder.name, **params})


def studies(folder):
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/.anymodal/tuning.db")
    return [optuna.load_study(study_name=s, storage=storage)
            for s in optuna.get_all_study_names(storage)]  # fmt: skip


def runs_of(folder, store):
    client = mlflow.MlflowClient(store, store)
    experiment = client.get_experiment_by_name(folder.name)
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return client, found


BAD = {"translate__learning_rate": 0.00001, "translate__max_epochs": 4,
       "tune__translation__learning_rate": RATE}  # fmt: skip


def test_a_winner_is_written_registered_and_recorded(tmp_path, store):
    folder = tmp_path / "winner"
    path = make(folder, store, **BAD)
    text = path.read_text()
    (result,) = tune(context_of(path), path, "translation")
    assert result.wins and result.written and result.gain.beats()
    old, new = result.changes["translate.learning_rate"]
    assert old == 0.00001 and new > 0.0005
    # one value in the file is another one, and nothing else is
    assert path.read_text() == text.replace("learning_rate: 1.0e-05", f"learning_rate: {new}")
    assert path.read_text() != text

    client, runs = runs_of(folder, store)
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert [run.info.run_name for run in trials] == [f"trial {n}" for n in range(4)]
    assert trials[0].data.params["translate.learning_rate"] == "1e-05"
    assert {run.data.tags["pairing"] for run in runs} == {"class"}
    for run in trials:
        curve = client.get_metric_history(run.info.run_id, "score_by_epoch/translation")
        assert [point.step for point in curve] == list(range(1, len(curve) + 1))
        complete = run.info.status == "FINISHED"
        assert complete == ("score/translation" in run.data.metrics) and (
            len(curve) == 4 or not complete
        )
    metrics = parent.data.metrics
    assert metrics["confirm_gain/translation"] == pytest.approx(result.gain.value)
    assert metrics["confirm_gain_low/translation"] > 0
    history = client.get_metric_history(parent.info.run_id, "confirm_new_by_seed/translation")
    assert [point.step for point in history] == [1000, 1001, 1002]
    assert "better by more than the noise" in parent.data.tags["result"]
    kept = {entry.path for entry in client.list_artifacts(parent.info.run_id, "figures")}
    assert kept == {f"figures/{name}.png" for name in ("history", "parallel")}
    assert "trials.json" in {entry.path for entry in client.list_artifacts(parent.info.run_id)}

    champion = client.get_model_version_by_alias("anymodal-translation", "champion")
    assert str(champion.version) == result.version
    assert champion.tags["tuned_by"] == result.study
    assert "its parameters are better" in champion.tags["champion_decision"]
    assert float(champion.tags["champion_gain"]) == pytest.approx(result.gain.value, abs=1e-6)
    fetched = client.download_artifacts(champion.run_id, "validation/anymodal-translation.json")
    assert "toy_audio+toy_image" in open(fetched).read()  # noqa: PTH123, SIM115

    # the same command again: the study has its trials, and its best is in use now
    text = path.read_text()
    (again,) = tune(context_of(path), path, "translation")
    assert again.study == result.study and again.trials == 4
    assert not again.wins and again.reason == "no trial beat the parameters in use"
    assert path.read_text() == text


def test_a_dry_run_and_a_file_changed_meanwhile_leave_file_and_registry_alone(tmp_path, store):
    path = make(tmp_path / "dry", store, **BAD)
    context, before = context_of(path), path.read_bytes()
    client = mlflow.MlflowClient(store, store)
    versions = len(client.search_model_versions("name = 'anymodal-translation'"))
    (result,) = tune(context, path, "translation", dry_run=True)
    assert result.wins and not result.written
    assert path.read_bytes() == before
    path.write_text(path.read_text().replace("max_epochs: 4", "max_epochs: 5"))
    before = path.read_bytes()
    (result,) = tune(context, path, "translation")
    assert result.wins and not result.written and "changed in the meantime" in result.reason
    assert path.read_bytes() == before
    assert len(client.search_model_versions("name = 'anymodal-translation'")) == versions


def test_a_loser_leaves_the_file_as_it_is_to_the_byte(tmp_path, store):
    folder = tmp_path / "loser"
    # seeds differ more than these parameters do
    path = make(folder, store, tune__translation__margin=[0.99, 1.01], translate__margin=1.0)
    before = path.read_bytes()
    (result,) = tune(context_of(path), path, "translation", trials=6)
    assert not result.wins and not result.written
    assert path.read_bytes() == before
    assert result.trials == 6
    assert "not better by more than the noise" in result.reason or "no trial beat" in result.reason


def test_only_training_and_validation_rows_are_read(tmp_path, store):
    """Where all other rows are spoilt, every trial comes to the same score."""
    scores = {}
    space = {"tune__translation__hidden": [8, 16, 32], "tune__forest__min_leaf": [1, 2, 4],
             "tune__trials": 3, "translate__max_epochs": 3}  # fmt: skip
    for name in ("clean", "poisoned"):
        folder = tmp_path / name
        params = {"tracking__uri": store, "tracking__experiment": name, **space}
        path = toy(folder, params, poisoned=name == "poisoned")
        results = tune(context_of(path), path, dry_run=True)
        assert [result.what for result in results] == ["translation", "forest"]
        scores[name] = {
            study.study_name: [(t.params, t.state, t.value) for t in study.trials]
            for study in studies(folder)
        }
        scores[name]["gains"] = [result.gain for result in results]
    # the studies' names say what scores depend on: the spoilt rows are not in them either
    assert scores["clean"] == scores["poisoned"]
    with pytest.raises(AnymodalError, match="not finite"):
        from anymodal.pipeline.stages.retrieve import retrieve
        from anymodal.pipeline.stages.translate import translate

        context = context_of(path)
        params = context.params.model_copy(
            update={
                "translate": context.params.translate.model_copy(update={"seeds": 5}),
                "tracking": context.params.tracking.model_copy(update={"register_models": False}),
            }
        )
        translate(replace(context, params=params), "toy_audio", "toy_image")
        retrieve(replace(context, params=params), "toy_audio", "toy_image")


def test_what_diverges_is_pruned_and_the_study_goes_on(tmp_path, store):
    folder = tmp_path / "diverges"
    path = make(folder, store, tune__translation__learning_rate=[0.001, 1e19],
                tune__pruner="none", translate__max_epochs=3)  # fmt: skip
    (result,) = tune(context_of(path), path, "translation", trials=6, dry_run=True)
    (study,) = studies(folder)
    by_rate = {t.params["learning_rate"]: t for t in study.trials}
    assert by_rate[1e19].state == TrialState.PRUNED
    assert "became" in by_rate[1e19].user_attrs["why"]
    assert result.trials == 6 and result.best is not None
    assert list((folder / ".anymodal/tune/checkpoints").glob("*")) == []
    _, runs = runs_of(folder, store)
    killed = [run for run in runs if run.info.status == "KILLED"]
    assert killed and all("became" in run.data.tags["pruned"] for run in killed)


def test_hopeless_trials_are_pruned_and_leave_no_checkpoint(tmp_path, store, monkeypatch):
    from anymodal.projection import training, training_data

    monkeypatch.setattr(
        training_data,
        "train_translation",
        lambda *args, **options: training.train_translation(*args, **options, checkpoint_seconds=0),
    )
    folder = tmp_path / "hopeless"
    path = make(folder, store, tune__translation__learning_rate=[0.003, 0.0000001],
                translate__learning_rate=0.003, tune__startup_trials=1)  # fmt: skip
    (result,) = tune(context_of(path), path, "translation", trials=8, dry_run=True)
    (study,) = studies(folder)
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert pruned and {t.params["learning_rate"] for t in pruned} == {0.0000001}
    assert all(1 <= len(t.intermediate_values) < 8 for t in pruned)
    assert result.pruned == len(pruned)
    assert list((folder / ".anymodal/tune/checkpoints").glob("*")) == []


def anymodal(*words, folder, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "anymodal", "tune", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip


SLOW = {"tune__translation__hidden": [8, 16, 32, 64], "translate__max_epochs": 25,
        "translate__patience": 25, "tune__pruner": "none", "tune__trials": 4}  # fmt: skip


def wait_for(database, query, seconds=120):
    """Until `query` finds something. Read as a file: Optuna would make the tables itself."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
                if connection.execute(query).fetchone():
                    return
        except sqlite3.OperationalError:
            pass  # not there yet
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_kill_9_in_a_trial_then_the_same_command_again(tmp_path, store):
    folder = tmp_path / "killed"
    make(folder, store, **SLOW)
    process = anymodal("--what", "translation", "--dry-run", folder=folder)
    wait_for(
        folder / ".anymodal/tuning.db",
        "select 1 from trials join trial_intermediate_values using (trial_id) "
        "where number = 1 and state = 'RUNNING' and step > 2",
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    (before,) = studies(folder)
    done, killed = before.trials[0], before.trials[1]
    assert killed.state == TrialState.RUNNING

    process = anymodal("--what", "translation", "--dry-run", folder=folder)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert "4 trials" in out
    (study,) = studies(folder)
    assert study.trials[0].value == done.value
    assert study.trials[1].state == TrialState.FAIL
    retried = [t for t in study.trials[2:] if t.params == killed.params
               and t.user_attrs["mlflow_run"] != killed.user_attrs["mlflow_run"]]  # fmt: skip
    assert retried and retried[0].state == TrialState.COMPLETE
    assert [t.state for t in counted(study)] == [TrialState.COMPLETE] * 4
    client, _ = runs_of(folder, store)
    assert client.get_run(killed.user_attrs["mlflow_run"]).info.status == "KILLED"


def test_two_processes_share_a_study(tmp_path, store):
    folder = tmp_path / "shared"
    make(folder, store, **SLOW)
    both = [anymodal("--what", "translation", "--dry-run", folder=folder) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(outputs)[-6000:]
    (study,) = studies(folder)
    trials = counted(study)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert len({t.user_attrs["begun"].split()[2] for t in trials}) == 2
    # each either has the result or says which process will
    for text in outputs:
        assert ("4 trials" in text) != ("other processes run the last trials" in text)
    assert any("4 trials" in text for text in outputs)


def test_a_forest_that_wins_is_the_registered_classifier(tmp_path, store):
    folder = tmp_path / "forest"
    names = {"audio": "musicnn_mtt", "image": "efficientnet_lite0"}
    known = {
        modality: (name, registry.get(name).version, registry.get(name).dim)
        for modality, name in names.items()
    }
    path = toy(
        folder,
        {"tracking__uri": store, "tracking__experiment": folder.name, "classify__trees": 1,
         "classify__max_depth": 1, "tune__forest__trees": [1, 40],
         "tune__forest__max_depth": [1, 32], "translate__max_epochs": 4},
        encoders=known,
    )  # fmt: skip
    (result,) = tune(context_of(path), path, "forest")
    assert result.written, result
    now = load_params(path).classify
    assert (now.trees, now.max_depth) != (1, 1)
    champion = mlflow.MlflowClient(store, store).get_model_version_by_alias(
        "anymodal-classifier", "champion"
    )
    assert str(champion.version) == result.version
    assert champion.tags["pair"] == "musicnn_mtt+efficientnet_lite0"
    assert "its parameters are better" in champion.tags["champion_decision"]
    saved = folder / ".anymodal/tune/classifier"
    assert load_projection(saved / "projection").origin.audio.name == "musicnn_mtt"
    calibrator = OpenSetCalibrator.load(saved)
    assert calibrator.facts["calibration_rows"] == {"audio": 32, "image": 32}
    assert set(calibrator.novelty) == {"audio", "image"}
    assert set(Reference.load(saved).table["modality"]) == {"audio", "image"}


def test_bad_calls_are_one_line(tmp_path, store):
    path = make(tmp_path / "bad", store, tune__translation__hidden=[8])
    with pytest.raises(AnymodalError, match="translation, forest or both"):
        tune(context_of(path), path, "encoders")
    shutil.rmtree(tmp_path / "bad/artifacts/embeddings")
    with pytest.raises(AnymodalError, match="embed"):
        tune(context_of(path), path, "translation")
    path.write_text(path.read_text().replace("toy_audio+toy_image", "best"))
    with pytest.raises(AnymodalError, match="anymodal select"):
        tune(context_of(path), path, "translation")
