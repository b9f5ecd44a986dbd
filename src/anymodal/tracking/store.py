"""The MLflow store, its experiment, and the code that a run is of.

mlflow takes seconds to import, so it is imported on first use.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from anymodal.config.params import TrackingParams
from anymodal.core.errors import AnymodalError

_VARIABLE = "MLFLOW_TRACKING_URI"


def connect(tracking: TrackingParams) -> Any:
    """Point mlflow at the tracking store and return the module.

    MLFLOW_TRACKING_URI, where set, wins over params.yaml.
    """
    mlflow = mlflow_module()
    chosen = os.environ.get(_VARIABLE)
    uri = chosen or tracking.uri
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.MlflowClient()
    except mlflow.MlflowException as error:
        reason = str(error).splitlines()[0]
        raise AnymodalError(f"MLflow refuses tracking store {uri!r}: {reason}") from error
    finally:
        if not chosen:
            # mlflow sets it too, and the next project of this process would take it for the user's
            os.environ.pop(_VARIABLE, None)
    return mlflow


def mlflow_module() -> Any:
    """mlflow, with telemetry and progress bars off."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # its notes on database migrations would hide our lines
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    return mlflow


def experiment_name(tracking: TrackingParams) -> str:
    """Name of the experiment; MLFLOW_EXPERIMENT_NAME, where set, wins over params.yaml."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or tracking.experiment


def experiment_of(mlflow: Any, tracking: TrackingParams) -> str:
    """Id of the experiment, which is made if need be; MLflow's global one stays as it is."""
    client, name = mlflow.MlflowClient(), experiment_name(tracking)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except mlflow.MlflowException:  # another process was faster
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise AnymodalError(
            f"MLflow experiment {name!r} was deleted; restore it, or set another name in "
            "params.yaml (tracking.experiment)"
        )
    return str(experiment.experiment_id)


def git_tags() -> dict[str, str]:
    """Tags of the commit, and whether there are uncommitted changes; empty outside of git."""

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
