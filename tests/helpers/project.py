"""A copy of this project with the bundled pack in it, for tests that run it as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from anymodal.cli.main import app
from anymodal.core.workspace import Workspace
from helpers.paths import ROOT

ONE_PROCESS = """
import subprocess, sys
from anymodal.cli.main import app
from anymodal.pipeline import runner

def in_this_process(root, command, *words):
    if command == "repro":
        for stage in runner.STAGES:
            app([stage], standalone_mode=False)
        command, words = "commit", ("--force",)
    subprocess.run([sys.executable, "-m", "dvc", command, *words], cwd=root, check=True)

runner._dvc = in_this_process
app(["run"], standalone_mode=False)
"""
"""`anymodal run` in one process: half of the time is what each stage's process imports."""
OURS = ("MLFLOW_", "ANYMODAL_PIPELINE", "DVC_")
"""Environment variables that tests set for themselves."""
FILES = ("MLproject", "dvc.yaml", "data.dvc", "python_env.yaml", ".dvcignore")


def write_params(folder: Path, overrides: Mapping[str, object]) -> None:
    """Set `section__field` of the params.yaml in `folder`."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for name, value in overrides.items():
        *sections, field = name.split("__")
        node = params
        for section in sections:
            node = node[section]
        node[field] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


class Project:
    """A project folder: its own git repository, DVC cache and MLflow store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def copy(cls, folder: Path, **overrides: object) -> Project:
        """Copy the project's files; `overrides` are `section__field=value` of params.yaml."""
        folder.mkdir(parents=True)
        for name in FILES:
            shutil.copy(ROOT / name, folder / name)
        shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
        write_params(folder, overrides)
        (folder / ".gitignore").write_text("/artifacts/\n/.anymodal/\nmlflow.db\nmlruns/\n/data\n")
        project = cls(folder)
        project.run("git", "init", "--quiet")
        project.run("dvc", "init", "--quiet")
        project.run("dvc", "remote", "add", "-d", "bundled", str(ROOT / ".dvc" / "store"))
        return project

    @property
    def workspace(self) -> Workspace:
        """The paths of its artifacts."""
        return Workspace(self.folder)

    def duplicate(self, folder: Path, **overrides: object) -> Project:
        """A copy in `folder` that shares no file, with other parameters; no git, DVC or pack.

        Nothing is registered from it: the MLflow store of a copy names the original's files.
        """
        kept = shutil.ignore_patterns(".dvc", ".git", "data")
        shutil.copytree(self.folder, folder, ignore=kept)
        write_params(folder, {"tracking__register_models": False, **overrides})
        return Project(folder)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, with this environment's tools first on the path."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
        return done

    def run_pipeline(self) -> None:
        """Bring all outputs up to date as `anymodal run` does, in one process instead of DVC's."""
        self.run(sys.executable, "-c", ONE_PROCESS)

    def invoke(self, *words: str) -> None:
        """Run `anymodal` in this process, without the seconds that a new one takes to import."""
        import mlflow

        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(OURS)]:
                patch.delenv(name)
            patch.chdir(self.folder)
            try:
                app(list(words), standalone_mode=False)
            finally:
                mlflow.set_tracking_uri(None)

    def runs(self) -> list[Any]:
        """The runs of its MLflow store."""
        import mlflow

        uri = f"sqlite:///{self.folder}/mlflow.db"
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        return client.search_runs([client.get_experiment_by_name("anymodal").experiment_id])

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in the folder without waiting for it."""
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def environment(self) -> dict[str, str]:
        """The environment of a user who typed `source .venv/bin/activate`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return kept | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # two processes of a test must give the same bits
            "OMP_NUM_THREADS": "1",
        }
