"""The report: one offline page of every stage's results."""

from __future__ import annotations

from pathlib import Path

from anymodal.config.params import Params
from anymodal.core.workspace import Workspace


def build_report(workspace: Workspace, params: Params, commit: str | None = None) -> Path:
    """Write the report page of `workspace`; see `anymodal.report.page.build_report`."""
    # matplotlib and jinja2 take a second to import, and the command line imports this package
    from anymodal.report.page import build_report as build

    return build(workspace, params, commit)
