"""MLflow: one run a stage, under one parent a pipeline run.

A stage runs in a process of its own (DVC starts one for each), so the runs find their parent by a
key that all processes of one pipeline run share: the run that `mlflow run` opened, the key that
`anymodal run` sets, or the `dvc` process above this one. A stage started by hand has no parent.

mlflow is imported on first use: it takes seconds, and the command line must answer at once.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil

from anymodal import __version__
from anymodal.errors import AnymodalError
from anymodal.params import Params, TrackingParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIPELINE_VARIABLE = "ANYMODAL_PIPELINE"
"""Environment variable whose value is shared by all stages of one pipeline run."""
PIPELINE_TAG = "anymodal.pipeline"
STAGE_TAG = "anymodal.stage"
PARENT_TAG = "mlflow.parentRunId"
OUTER_RUN = "MLFLOW_RUN_ID"
"""Environment variable by which `mlflow run` names its own run."""
CHAMPION = "champion"
"""Alias of the registered version that is meant to be used."""


@dataclass(frozen=True)
class Basis:
    """What a stage's results rest on; tagged on its run."""

    dataset: str
    """Name of the dataset."""
    pairing: str
    """`clip` or `class`."""
    source: Path
    """File of the clip table."""


class StageRun:
    """The MLflow run of one stage; metrics are named `<what>/<of what>`."""

    def __init__(self, run_id: str, params: Params) -> None:
        self.run_id = run_id
        self.params = params

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters beyond those of params.yaml, such as the pair of encoders."""
        _mlflow().log_params(dict(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers; `step` is an epoch or a seed."""
        _mlflow().log_metrics({name: float(value) for name, value in metrics.items()}, step=step)

    def log_history(self, name: str, values: Mapping[int, float]) -> None:
        """Record one curve in a single request: `values` maps step to value."""
        mlflow = _mlflow()
        now = int(pd.Timestamp.now().timestamp() * 1000)
        points = [
            mlflow.entities.Metric(name, float(value), now, step) for step, value in values.items()
        ]
        for start in range(0, len(points), 1000):  # MLflow's limit of one batch
            mlflow.MlflowClient().log_batch(self.run_id, metrics=points[start : start + 1000])

    def log_figure(self, figure: Figure, name: str) -> None:
        """Keep a matplotlib figure as `figures/<name>`."""
        _mlflow().log_figure(figure, f"figures/{name}")

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        """Keep a file or a folder as an artifact."""
        path = Path(path)
        if path.is_dir():
            _mlflow().log_artifacts(str(path), folder)
        else:
            _mlflow().log_artifact(str(path), folder)

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Keep a table that the UI can show, as `<name>.json`."""
        _mlflow().log_table(table, f"{name}.json")

    def log_dataset(self, table: pd.DataFrame, basis: Basis, context: str) -> None:
        """Link the clips that the stage used, with their digest, to the run."""
        mlflow = _mlflow()
        # lists have no place in MLflow's schema of a pandas dataset
        flat = table.drop(columns="labels", errors="ignore")
        flat = flat.astype(dict.fromkeys(flat.select_dtypes(exclude="number").columns, str))
        with warnings.catch_warnings():
            # any local path "can be interpreted in multiple ways"
            warnings.simplefilter("ignore", UserWarning)
            dataset = mlflow.data.from_pandas(
                flat, source=basis.source.as_posix(), name=basis.dataset
            )
        mlflow.log_input(dataset, context=context)


@contextmanager
def stage_run(
    stage: str, params: Params, basis: Basis | None, name: str = ""
) -> Iterator[StageRun]:
    """Open the run of `stage` under its pipeline's parent and close it whatever happens.

    `name` distinguishes runs of one stage, such as a pair of encoders. An exception marks the run
    as failed and goes on. All of params.yaml is recorded, as `section.field`.
    """
    mlflow = connect(params.tracking)
    client = mlflow.MlflowClient()
    parent = _parent(mlflow, params.tracking)
    tags = {
        STAGE_TAG: stage,
        "anymodal.version": __version__,
        "mlflow.source.name": f"anymodal {stage}",
        **_git_tags(),
    }
    if basis is not None:
        tags |= {"dataset": basis.dataset, "pairing": basis.pairing}
    if parent is not None:
        tags[PARENT_TAG] = parent
    # the UI nests runs within an experiment only, so a child stays in its parent's
    experiment = (
        client.get_run(parent).info.experiment_id
        if parent is not None
        else _experiment(mlflow, params.tracking)
    )
    outer = os.environ.get(OUTER_RUN)
    title = f"{stage} {name}".strip()
    run = client.create_run(experiment, tags=tags, run_name=title)
    try:
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.log_params(flatten(params))
            yield StageRun(run.info.run_id, params)
    finally:
        if outer is not None:  # MLflow forgets it when a run ends
            os.environ[OUTER_RUN] = outer
        if parent is not None:
            _settle_parent(client, parent, run.info.run_id, basis)


def connect(tracking: TrackingParams) -> Any:
    """Point mlflow at the tracking store and return the module.

    MLFLOW_TRACKING_URI, where set, wins over params.yaml.
    """
    mlflow = _mlflow()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.MlflowClient()
    except mlflow.MlflowException as error:
        reason = str(error).splitlines()[0]
        raise AnymodalError(f"MLflow refuses tracking store {uri!r}: {reason}") from error
    return mlflow


def flatten(params: Params) -> dict[str, Any]:
    """params.yaml as MLflow parameters: `translate.margin` and the like."""
    flat: dict[str, Any] = {}
    for section, value in params.model_dump().items():
        if isinstance(value, dict):
            flat |= {f"{section}.{name}": _text(field) for name, field in value.items()}
        else:
            flat[section] = value
    return flat


def pipeline_key() -> str | None:
    """What all stages of one pipeline run share; None for a stage started by hand."""
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
    parent = _parent(connect(params.tracking), params.tracking, title)
    assert parent is not None, "the caller sets PIPELINE_VARIABLE"
    return parent


def close_pipeline(params: Params, run_id: str, succeeded: bool) -> None:
    """Close the parent run, with DVC's lock file as evidence of what was run on what."""
    client = connect(params.tracking).MlflowClient()
    if Path("dvc.lock").is_file():
        client.log_artifact(run_id, "dvc.lock")
    client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # its notes on database migrations would bury our lines
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    return mlflow


def _experiment(mlflow: Any, tracking: TrackingParams) -> str:
    """Id of the experiment, made where it is not there yet; MLflow's global one is left alone."""
    client = mlflow.MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except mlflow.MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise AnymodalError(
            f"MLflow experiment {name!r} was deleted; restore it, or set another name in "
            "params.yaml (tracking.experiment)"
        )
    return str(found.experiment_id)


def _parent(mlflow: Any, tracking: TrackingParams, title: str = "pipeline") -> str | None:
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
    experiment = _experiment(mlflow, tracking)
    found = client.search_runs([experiment], f"tags.`{PIPELINE_TAG}` = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {PIPELINE_TAG: key, "anymodal.version": __version__, **_git_tags()}
    return str(client.create_run(experiment, tags=tags, run_name=title).info.run_id)


def _settle_parent(client: Any, parent: str, child: str, basis: Basis | None) -> None:
    """Bring the stage's last metrics to the parent, so that pipeline runs compare in one table."""
    run = client.get_run(child)
    for name, value in run.data.metrics.items():
        if name.startswith("summary/"):
            client.log_metric(parent, name.removeprefix("summary/"), value)
    if basis is not None:
        client.set_tag(parent, "dataset", basis.dataset)
        client.set_tag(parent, "pairing", basis.pairing)
    if PIPELINE_TAG in client.get_run(parent).data.tags:
        # nobody tells a stage that it is the last, so each one closes the parent anew
        client.set_terminated(parent, run.info.status)


def _git_tags() -> dict[str, str]:
    def git(*words: str) -> str:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=30)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        if not commit:
            return {}
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"mlflow.source.git.commit": commit, "git.dirty": str(bool(changed)).lower()}


def _text(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
