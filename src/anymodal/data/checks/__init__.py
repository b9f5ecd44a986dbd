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
    """Check a clip table whose subsets are drawn; a bad one raises nothing.

    quality: the measures of the clips' media; None or no rows: there are no media to check. With
    `out_dir`, checks.json and checks.html are written there.
    """
    # Great Expectations takes seconds to import
    from anymodal.data.checks.suite import check

    report = check(clips, params, quality)
    if out_dir is not None:
        report.write(Path(out_dir) / "checks.json")
        report.write_page(Path(out_dir) / "checks.html")
    return report
