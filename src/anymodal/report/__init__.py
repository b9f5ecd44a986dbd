"""The report: one offline page that leads from the question to the answer.

`evidence` reads the artifacts, `tables` condenses them, `figures` draws them, `wording` puts them
into sentences and `page` sets the page.
"""

from __future__ import annotations

from pathlib import Path

from anymodal.params import Params
from anymodal.workspace import Workspace


def build_report(workspace: Workspace, params: Params, commit: str | None = None) -> Path:
    """Write the report page of `workspace`; see `anymodal.report.page.build_report`."""
    # matplotlib and jinja2 take a second to import, and the command line imports this package
    from anymodal.report.page import build_report as build

    return build(workspace, params, commit)
