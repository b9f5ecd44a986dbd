"""An MLflow store for every test: making its tables takes seconds, copying them does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from anymodal.tracking.pipeline_runs import PIPELINE_VARIABLE


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a store without runs."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        uri = f"sqlite:///{folder}/mlflow.db"
        mlflow.MlflowClient(uri, uri).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store_folder(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a store of its own, outside of any run."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(PIPELINE_VARIABLE, raising=False)
    shutil.copy(empty_store, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path
