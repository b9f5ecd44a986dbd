import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from anymodal import tracking
from anymodal.errors import AnymodalError
from anymodal.params import Params
from anymodal.tracking import Basis, flatten, pipeline_key, stage_run

BASIS = Basis("tones", "class", Path("clips.parquet"))


@pytest.fixture
def params(tmp_path, monkeypatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(tracking.PIPELINE_VARIABLE, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return Params()


def runs_of(params):
    client = tracking.connect(params.tracking).MlflowClient()
    experiment = client.get_experiment_by_name("anymodal")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def test_stage_records_params_tags_metrics_and_dataset(params):
    table = pd.DataFrame({"clip_id": ["a", "b"], "labels": [["/m/1"], []], "split": ["test", None]})
    with stage_run("retrieve", params, BASIS, "a+b") as run:
        run.log_metrics({"ndcg": 0.5})
        run.log_history("loss", {1: 3.0, 2: 1.0})
        run.log_dataset(table, BASIS, "retrieval")
    (found,) = runs_of(params)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "retrieve a+b"
    assert found.data.metrics == {"ndcg": 0.5, "loss": 1.0}
    assert found.data.params["translate.margin"] == "1.0"
    assert found.data.params["embed.audio"] == "musicnn_mtt,musicnn_msd,musicnn_vgg_mtt"
    assert found.data.tags["pairing"] == "class" and found.data.tags["dataset"] == "tones"
    assert found.inputs.dataset_inputs[0].dataset.name == "tones"
    assert tracking.PARENT_TAG not in found.data.tags


def test_failure_is_recorded_and_raised(params):
    with pytest.raises(ValueError, match="boom"), stage_run("embed", params, BASIS):
        raise ValueError("boom")
    (found,) = runs_of(params)
    assert found.info.status == "FAILED"


def test_stages_of_one_pipeline_share_a_parent_and_another_pipeline_does_not(params, monkeypatch):
    monkeypatch.setenv(tracking.PIPELINE_VARIABLE, "one")
    for stage in ("dataset", "embed"):
        with stage_run(stage, params, BASIS) as run:
            run.log_metrics({f"summary/{stage}": 1.0})
    monkeypatch.setenv(tracking.PIPELINE_VARIABLE, "two")
    with stage_run("dataset", params, BASIS):
        pass
    found = runs_of(params)
    parents = [run for run in found if tracking.PIPELINE_TAG in run.data.tags]
    children = {
        parent.data.tags[tracking.PIPELINE_TAG]: [
            run.data.tags[tracking.STAGE_TAG]
            for run in found
            if run.data.tags.get(tracking.PARENT_TAG) == parent.info.run_id
        ]
        for parent in parents
    }
    assert children == {"one": ["dataset", "embed"], "two": ["dataset"]}
    (first,) = (p for p in parents if p.data.tags[tracking.PIPELINE_TAG] == "one")
    assert first.data.metrics == {"dataset": 1.0, "embed": 1.0}
    assert first.info.status == "FINISHED"
    assert first.data.tags["pairing"] == "class"


def test_mlflow_runs_run_becomes_the_parent(params, monkeypatch):
    client = tracking.connect(params.tracking).MlflowClient()
    outer = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    with stage_run("dataset", params, BASIS) as run:
        inner = run.run_id
    told = client.get_run(inner)
    assert told.data.tags[tracking.PARENT_TAG] == outer.info.run_id
    # the UI nests runs within an experiment only
    assert told.info.experiment_id == "0"
    assert os.environ["MLFLOW_RUN_ID"] == outer.info.run_id


def test_unknown_outer_run_is_no_parent(params, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with stage_run("dataset", params, BASIS):
        pass
    (found,) = runs_of(params)
    assert tracking.PARENT_TAG not in found.data.tags


def test_a_dvc_process_above_is_the_pipeline(tmp_path, monkeypatch):
    monkeypatch.delenv(tracking.PIPELINE_VARIABLE, raising=False)
    assert pipeline_key() is None or pipeline_key().startswith("dvc-")
    # a script of that name stands for the command, as pip's entry point does
    script = tmp_path / "dvc"
    inner = "from anymodal.tracking import pipeline_key; print(pipeline_key())"
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
        tracking.connect(Params().tracking)
    mlflow.set_tracking_uri(None)


def test_one_project_after_another_in_one_process(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("first", "second"):
        uri = f"sqlite:///{tmp_path}/{name}.db"
        tracking.connect(Params().tracking.model_copy(update={"uri": uri}))
        assert mlflow.get_tracking_uri() == uri
    mlflow.set_tracking_uri(None)
