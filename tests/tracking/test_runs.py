import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from anymodal.config.params import Params
from anymodal.core.errors import AnymodalError
from anymodal.tracking import pipeline_runs, runs, store
from anymodal.tracking.pipeline_runs import DatasetRef, flatten, pipeline_key
from anymodal.tracking.runs import stage_run

REF = DatasetRef("tones", "class", Path("clips.parquet"))


@pytest.fixture
def params(store_folder):
    return Params()


def runs_of(params):
    client = store.connect(params.tracking).MlflowClient()
    experiment = client.get_experiment_by_name("anymodal")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def test_stage_records_params_tags_metrics_and_dataset(params):
    table = pd.DataFrame({"clip_id": ["a", "b"], "labels": [["/m/1"], []], "split": ["test", None]})
    with stage_run("retrieve", params, REF, "a+b") as run:
        run.log_metrics({"ndcg": 0.5})
        run.log_history("loss", {1: 3.0, 2: 1.0})
        run.log_dataset(table, REF, "retrieval")
    (found,) = runs_of(params)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "retrieve a+b"
    assert found.data.metrics == {"ndcg": 0.5, "loss": 1.0}
    assert found.data.params["translate.margin"] == "1.0"
    assert found.data.params["embed.image"].startswith("efficientnet_lite0,efficientnet_lite1")
    assert found.data.tags["pairing"] == "class" and found.data.tags["dataset"] == "tones"
    assert found.inputs.dataset_inputs[0].dataset.name == "tones"
    assert runs.PARENT_TAG not in found.data.tags


def test_failure_is_recorded_and_raised(params):
    with pytest.raises(ValueError, match="boom"), stage_run("embed", params, REF):
        raise ValueError("boom")
    (found,) = runs_of(params)
    assert found.info.status == "FAILED"


def test_stages_of_one_pipeline_share_a_parent_and_another_pipeline_does_not(params, monkeypatch):
    monkeypatch.setenv(pipeline_runs.PIPELINE_VARIABLE, "one")
    for stage in ("dataset", "embed"):
        with stage_run(stage, params, REF) as run:
            run.log_metrics({f"summary/{stage}": 1.0})
    monkeypatch.setenv(pipeline_runs.PIPELINE_VARIABLE, "two")
    with stage_run("dataset", params, REF):
        pass
    found = runs_of(params)
    parents = [run for run in found if pipeline_runs.PIPELINE_TAG in run.data.tags]
    children = {
        parent.data.tags[pipeline_runs.PIPELINE_TAG]: [
            run.data.tags[pipeline_runs.STAGE_TAG]
            for run in found
            if run.data.tags.get(runs.PARENT_TAG) == parent.info.run_id
        ]
        for parent in parents
    }
    assert children == {"one": ["dataset", "embed"], "two": ["dataset"]}
    (first,) = (p for p in parents if p.data.tags[pipeline_runs.PIPELINE_TAG] == "one")
    assert first.data.metrics == {"dataset": 1.0, "embed": 1.0}
    assert first.info.status == "FINISHED"
    assert first.data.tags["pairing"] == "class"


def test_mlflow_runs_run_becomes_the_parent(params, monkeypatch):
    client = store.connect(params.tracking).MlflowClient()
    outer = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    with stage_run("dataset", params, REF) as run:
        inner = run.run_id
    child = client.get_run(inner)
    assert child.data.tags[runs.PARENT_TAG] == outer.info.run_id
    # the UI nests runs within an experiment only
    assert child.info.experiment_id == "0"
    assert os.environ["MLFLOW_RUN_ID"] == outer.info.run_id


def test_unknown_outer_run_is_no_parent(params, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with stage_run("dataset", params, REF):
        pass
    (found,) = runs_of(params)
    assert runs.PARENT_TAG not in found.data.tags


def test_a_dvc_process_above_is_the_pipeline(tmp_path, monkeypatch):
    monkeypatch.delenv(pipeline_runs.PIPELINE_VARIABLE, raising=False)
    assert pipeline_key() is None or pipeline_key().startswith("dvc-")
    # a script of that name stands for the command, as pip's entry point does
    script = tmp_path / "dvc"
    inner = "from anymodal.tracking.pipeline_runs import pipeline_key; print(pipeline_key())"
    script.write_text(
        "import subprocess, sys\n"
        f"for _ in range(2): subprocess.run([sys.executable, '-c', {inner!r}])\n"
    )
    answer = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    one, two = answer.stdout.split()
    assert one == two and one.startswith("dvc-")


def test_every_parameter_is_recorded_once():
    flat = flatten(Params())
    assert flat["seed"] == 0 and flat["classify.pair"] == "best"
    assert not any(isinstance(value, (dict, list, tuple)) for value in flat.values())


def test_bad_store_is_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "carrier-pigeon://here")
    with pytest.raises(AnymodalError, match="carrier-pigeon"):
        store.connect(Params().tracking)
    mlflow.set_tracking_uri(None)


def test_one_project_after_another_in_one_process(empty_store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("first", "second"):
        shutil.copy(empty_store, tmp_path / f"{name}.db")
        uri = f"sqlite:///{tmp_path}/{name}.db"
        store.connect(Params().tracking.model_copy(update={"uri": uri}))
        assert mlflow.get_tracking_uri() == uri
    mlflow.set_tracking_uri(None)
