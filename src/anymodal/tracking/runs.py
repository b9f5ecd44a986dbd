"""MLflow runs: one per stage, under one parent per pipeline run.

A stage runs in a process that DVC starts, so runs find their parent by a key that all processes of
one pipeline run share (`anymodal.tracking.pipeline_runs`). A stage started by hand has no parent.
mlflow takes seconds to import, so it is imported on first use.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from anymodal import __version__
from anymodal.config.params import Params, TrackingParams
from anymodal.tracking.metric_names import HEADLINE
from anymodal.tracking.pipeline_runs import (
    OUTER_RUN,
    STAGE_TAG,
    DatasetRef,
    dataset_tags,
    flatten,
    parent_of,
    settle_parent,
)
from anymodal.tracking.store import connect, experiment_of, git_tags, mlflow_module

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARENT_TAG = "mlflow.parentRunId"


class StageRun:
    """The MLflow run of one stage."""

    def __init__(self, run_id: str, params: Params) -> None:
        self.run_id = run_id
        self.params = params
        self.headlines: dict[str, float] = {}
        """Metrics for the pipeline's parent run."""
        self.headline_params: dict[str, Any] = {}
        """Parameters for it."""

    def log_params(self, params: Mapping[str, Any], headline: bool = False) -> None:
        """Record parameters beyond those of params.yaml, such as the pair of encoders; those of
        the `headline` go to the pipeline's parent run too."""
        mlflow_module().log_params(dict(params))
        if headline:
            self.headline_params |= params

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers; `step` is an epoch or a seed. Those under `summary/` go to the pipeline's
        parent run too."""
        values = {name.removeprefix(HEADLINE): float(value) for name, value in metrics.items()}
        mlflow_module().log_metrics(values, step=step)
        named = [name.removeprefix(HEADLINE) for name in metrics if name.startswith(HEADLINE)]
        self.headlines |= {name: values[name] for name in named}

    def log_history(self, name: str, values: Mapping[int, float]) -> None:
        """Record one curve in a single request: `values` maps step to value."""
        mlflow = mlflow_module()
        now = time.time_ns() // 1_000_000
        points = [
            mlflow.entities.Metric(name, float(value), now, step) for step, value in values.items()
        ]
        mlflow.MlflowClient().log_batch(self.run_id, metrics=points)

    def log_figure(self, figure: Figure, name: str) -> None:
        """Keep a matplotlib figure as `figures/<name>`."""
        mlflow_module().log_figure(figure, f"figures/{name}")

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        """Keep a file or a folder as an artifact."""
        path = Path(path)
        if path.is_dir():
            mlflow_module().log_artifacts(str(path), folder)
        else:
            mlflow_module().log_artifact(str(path), folder)

    def log_json(self, value: Mapping[str, Any], path: str) -> None:
        """Keep JSON values as the artifact `path`."""
        mlflow_module().log_dict(dict(value), path)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run."""
        mlflow_module().set_tags(dict(tags))

    @contextmanager
    def nested(self, title: str, params: Mapping[str, Any]) -> Iterator[StageRun]:
        """Open a run below this one, such as a trial's; an exception marks it as failed."""
        mlflow = mlflow_module()
        client = mlflow.MlflowClient()
        parent = client.get_run(self.run_id)
        kept = (STAGE_TAG, "anymodal.version", "mlflow.source.name", "dataset", "pairing")
        tags = {name: parent.data.tags[name] for name in kept if name in parent.data.tags}
        tags[PARENT_TAG] = self.run_id
        run = client.create_run(parent.info.experiment_id, tags=tags, run_name=title)
        with mlflow.start_run(run_id=run.info.run_id, nested=True):
            mlflow.log_params(dict(params))
            yield StageRun(run.info.run_id, self.params)

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Keep a table that the UI can show, as `<name>.json`."""
        mlflow_module().log_table(table, f"{name}.json")

    def log_dataset(self, table: pd.DataFrame, dataset_ref: DatasetRef, context: str) -> None:
        """Link the clips that the stage used, with their digest, to the run."""
        mlflow = mlflow_module()
        # lists have no place in MLflow's schema of a pandas dataset
        flat = table.drop(columns="labels", errors="ignore")
        flat = flat.astype(dict.fromkeys(flat.select_dtypes(exclude="number").columns, str))
        with warnings.catch_warnings():
            # any local path "can be interpreted in multiple ways"
            warnings.simplefilter("ignore", UserWarning)
            dataset = mlflow.data.from_pandas(
                flat, source=dataset_ref.source.as_posix(), name=dataset_ref.dataset
            )
        mlflow.log_input(dataset, context=context)


@contextmanager
def stage_run(
    stage: str, params: Params, dataset_ref: DatasetRef | None, name: str = ""
) -> Iterator[StageRun]:
    """Open the run of `stage` under its pipeline's parent and close it whatever happens.

    `name` distinguishes runs of one stage, such as a pair of encoders. An exception marks the run
    as failed and is raised. All of params.yaml is recorded, as `section.field`.
    """
    mlflow = connect(params.tracking)
    client = mlflow.MlflowClient()
    parent = parent_of(mlflow, params.tracking)
    tags = {
        STAGE_TAG: stage,
        "anymodal.version": __version__,
        "mlflow.source.name": f"anymodal {stage}",
        **git_tags(),
        **dataset_tags(dataset_ref),
    }
    if parent is not None:
        tags[PARENT_TAG] = parent
    # the UI nests runs within an experiment only, so a child stays in its parent's
    experiment = (
        client.get_run(parent).info.experiment_id
        if parent is not None
        else experiment_of(mlflow, params.tracking)
    )
    outer = os.environ.get(OUTER_RUN)
    title = f"{stage} {name}".strip()
    run = client.create_run(experiment, tags=tags, run_name=title)
    opened = StageRun(run.info.run_id, params)
    try:
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.log_params(flatten(params))
            yield opened
    finally:
        if outer is not None:  # MLflow forgets it when a run ends
            os.environ[OUTER_RUN] = outer
        if parent is not None:
            named = flatten(params) | opened.headline_params
            settle_parent(client, parent, run.info.run_id, dataset_ref, named, opened.headlines)


def close_run(tracking: TrackingParams, run_id: str, status: str) -> None:
    """Set a run's end, also that of a process that was killed; a run that is gone stays gone."""
    mlflow = connect(tracking)
    with suppress(mlflow.MlflowException):
        mlflow.MlflowClient().set_terminated(run_id, status)
