"""Checks of a clip table with Great Expectations, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from anymodal.config.params import CheckParams
from anymodal.data.checks.report import CheckReport, CheckResult

__all__ = ["CheckReport", "CheckResult", "run_checks"]


def run_checks(
    clips: pd.DataFrame,
    params: CheckParams,
    out_dir: str | Path | None = None,
    quality: pd.DataFrame | None = None,
) -> CheckReport:
    """Check a clip table whose subsets are drawn (`anymodal.data.checks.suite` lists the checks).

    quality: the measures of the clips' media (`anymodal.data.quality`); None or no rows: there are
    no media to check. With `out_dir`, checks.json and checks.html are written there. Both depend on
    the table and the parameters alone.

    Nothing is raised for a bad table: see the report's `ok` and `raise_if_failed`.
    """
    # Great Expectations takes seconds to import
    from anymodal.data.checks.suite import check

    report = check(clips, params, quality)
    if out_dir is not None:
        report.write(Path(out_dir) / "checks.json")
        report.write_page(Path(out_dir) / "checks.html")
    return report
