"""Parent runs: what the stages of one pipeline run have in common in MLflow.

The parent gets every stage's headlines, so that pipelines compare by their parents alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from anymodal import __version__
from anymodal.config.params import Params, TrackingParams
from anymodal.tracking.metric_names import LoggedMetrics
from anymodal.tracking.store import connect, experiment_of, git_tags, mlflow_module

PIPELINE_VARIABLE = "ANYMODAL_PIPELINE"
"""Environment variable whose value is shared by all stages of one pipeline run."""
PIPELINE_TAG = "anymodal.pipeline"
STAGE_TAG = "anymodal.stage"
OUTER_RUN = "MLFLOW_RUN_ID"
"""Environment variable by which `mlflow run` names its own run."""
PIPELINE = "pipeline"
"""The stage tag of a parent run."""


@dataclass(frozen=True)
class DatasetRef:
    """The dataset that a stage's results rest on; tagged on its run."""

    dataset: str
    """Name of the dataset."""
    pairing: str
    """`clip` or `class`."""
    source: Path
    """File of the clip table."""


def dataset_tags(ref: DatasetRef | None) -> dict[str, str]:
    """The tags of a run on a dataset."""
    return {} if ref is None else {"dataset": ref.dataset, "pairing": ref.pairing}


def flatten(params: Params) -> dict[str, Any]:
    """params.yaml as MLflow parameters: `translate.margin` and the like."""
    flat: dict[str, Any] = {}

    def add(section: dict[str, Any], prefix: str) -> None:
        for name, value in section.items():
            if isinstance(value, dict) and set(value) != {"low", "high", "log"}:
                add(value, f"{prefix}{name}.")
            else:
                flat[prefix + name] = _text(value)

    add(params.model_dump(), "")
    return flat


def pipeline_key() -> str | None:
    """The key that all stages of one pipeline run share; None for a stage started by hand."""
    if key := os.environ.get(PIPELINE_VARIABLE):
        return key
    for process in psutil.Process().parents():
        try:
            words = [Path(word).name for word in process.cmdline()[:3]]
            started = int(process.create_time())
        except psutil.Error:
            continue
        if "dvc" in words:
            return f"dvc-{process.pid}-{started}"
    return None


def open_pipeline(params: Params, title: str) -> str:
    """Open (or take over, under `mlflow run`) the parent run of a pipeline; return its run id."""
    parent = parent_of(connect(params.tracking), params.tracking, title)
    assert parent is not None, "the caller sets PIPELINE_VARIABLE"
    return parent


def close_pipeline(params: Params, run_id: str, succeeded: bool) -> None:
    """Close the parent run, with DVC's lock file as an artifact."""
    client = connect(params.tracking).MlflowClient()
    if Path("dvc.lock").is_file():
        client.log_artifact(run_id, "dvc.lock")
    client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def complete_pipeline(
    params: Params,
    run_id: str,
    results: Mapping[str, LoggedMetrics],
    dataset_ref: DatasetRef,
) -> None:
    """Log the headlines of stages that did not run, their results being up to date, on the parent.

    `results` are by stage. What the parent has stays; the tag `anymodal.unchanged` names the stages
    whose metrics were added.
    """
    client = connect(params.tracking).MlflowClient()
    _log(client, run_id, dataset_ref, flatten(params), {})
    unchanged = []
    for stage, logged in results.items():
        known = client.get_run(run_id).data.metrics
        new = {name: value for name, value in logged.headlines.items() if name not in known}
        if new:
            unchanged.append(stage)
            _log(client, run_id, None, logged.params, new)
    if unchanged:
        client.set_tag(run_id, "anymodal.unchanged", ",".join(unchanged))


def parent_of(mlflow: Any, tracking: TrackingParams, title: str = "pipeline") -> str | None:
    """Run id of the parent, opened if need be; None for a stage started by hand."""
    client = mlflow.MlflowClient()
    if outer := os.environ.get(OUTER_RUN):
        try:
            # it may live in another store, when `mlflow run` was called from another folder
            return str(client.get_run(outer).info.run_id)
        except mlflow.MlflowException:
            pass
    key = pipeline_key()
    if key is None:
        return None
    experiment = experiment_of(mlflow, tracking)
    parents = client.search_runs([experiment], f"tags.`{PIPELINE_TAG}` = '{key}'", max_results=1)
    if parents:
        return str(parents[0].info.run_id)
    tags = {PIPELINE_TAG: key, STAGE_TAG: PIPELINE, "anymodal.version": __version__, **git_tags()}
    return str(client.create_run(experiment, tags=tags, run_name=title).info.run_id)


def settle_parent(
    client: Any,
    parent: str,
    child: str,
    dataset_ref: DatasetRef | None,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> None:
    """Log a stage's headlines on the parent, so that pipeline runs compare in one table."""
    _log(client, parent, dataset_ref, params, metrics)
    if PIPELINE_TAG in client.get_run(parent).data.tags:
        # a stage does not know whether it is the last, so each one closes the parent
        client.set_terminated(parent, client.get_run(child).info.status)


def _log(
    client: Any,
    parent: str,
    dataset_ref: DatasetRef | None,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> None:
    """Log to a parent run; its parameters stay as they are."""
    mlflow = mlflow_module()
    known = client.get_run(parent).data.params
    new = {name: value for name, value in params.items() if name not in known}
    mlflow.log_params(new, run_id=parent)
    mlflow.log_metrics(dict(metrics), run_id=parent)
    client.set_tag(parent, STAGE_TAG, PIPELINE)
    for tag, value in dataset_tags(dataset_ref).items():
        client.set_tag(parent, tag, value)


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return f"{value['low']} to {value['high']}{', log' if value['log'] else ''}"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
