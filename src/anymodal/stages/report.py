"""Stage `report`: one page that leads from the question to the answer."""

from __future__ import annotations

from pathlib import Path

from anymodal.report import build_report
from anymodal.stages.base import Context, basis
from anymodal.tracking import stage_run


def report(context: Context) -> Path:
    """Run the stage; return the page's path."""
    with stage_run("report", context.params, basis(context.workspace)) as run:
        path = build_report(context.workspace, context.params)
        run.log_file(path)
    return path
