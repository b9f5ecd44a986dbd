"""The whole pipeline: DVC decides what must run, one parent MLflow run holds it together."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from anymodal.config.params import load_params
from anymodal.core.errors import AnymodalError
from anymodal.core.workspace import Workspace
from anymodal.pipeline.context import Context
from anymodal.tracking.metrics import of_workspace
from anymodal.tracking.pipeline_runs import (
    PIPELINE_VARIABLE,
    close_pipeline,
    complete_pipeline,
    open_pipeline,
)

STAGES = (
    "dataset", "check", "embed", "translate", "retrieve", "select", "classify", "mixing",
    "structure", "cross_source", "report",
)  # fmt: skip
"""Stages in the order of the data's way through them."""


def run_pipeline(root: Path, until: str | None = None, overrides: Sequence[str] = ()) -> None:
    """Bring the outputs up to date, all of them or up to the stage `until`.

    `overrides` are `section.field=value`: they make the run a DVC experiment, which sets them in
    params.yaml and keeps the run beside others (`dvc exp show`). Data that DVC tracks
    (`<dataset.path>.dvc`) and that are not there are pulled first.
    """
    if until is not None and until not in STAGES:
        raise AnymodalError(f"no stage {until!r}; the stages are: {', '.join(STAGES)}")
    for override in overrides:
        if "=" not in override:
            raise AnymodalError(f"{override!r} sets nothing; write section.field=value")
    if not (root / "dvc.yaml").is_file():
        raise AnymodalError(f"no dvc.yaml in {root.resolve()}; run inside an anymodal project")
    params = load_params(root / "params.yaml")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ[PIPELINE_VARIABLE] = uuid.uuid4().hex
    tracked = f"{params.dataset.path.rstrip('/')}.dvc"
    if (root / tracked).is_file() and not (root / params.dataset.path).is_dir():
        _dvc(root, "pull", "--quiet", tracked)
    run_id = open_pipeline(params, f"pipeline {until}" if until else "pipeline")
    # stages find their parent by the key alone, also under `mlflow run`
    words = ["repro", *([until] if until else [])]
    if overrides:
        words = ["exp", "run", *(word for o in overrides for word in ("-S", o)), *words[1:]]
    succeeded = False
    try:
        _dvc(root, *words)
        succeeded = True
        if until is None:  # else what lies behind that stage may be of before
            # read again: a DVC experiment has set its values in the file
            now = load_params(root / "params.yaml")
            context = Context(Workspace(root), now)
            logged = of_workspace(context.workspace)
            complete_pipeline(now, run_id, logged, context.dataset_ref)
    finally:
        close_pipeline(params, run_id, succeeded)


def _dvc(root: Path, *words: str) -> None:
    # the stages call `python`, which must be this one also when no environment is activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=root, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        raise AnymodalError(f"`dvc {' '.join(words)}` failed (status {done.returncode}); see above")
