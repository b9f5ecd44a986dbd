"""Checks of a clip table with Great Expectations, before anything is trained on it.

`run_checks` returns a `CheckReport`; given a folder it also writes checks.json and checks.html.
Both depend on the table and the parameters alone (no times, no machine), so that a pipeline can
compare them between runs.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from anymodal.checks.report import CheckReport, CheckResult, write_report
from anymodal.params import CheckParams

__all__ = ["CheckReport", "CheckResult", "run_checks"]


def run_checks(
    clips: pd.DataFrame, params: CheckParams, out_dir: str | Path | None = None
) -> CheckReport:
    """Check a clip table whose subsets are drawn; see `anymodal.checks.suite` for what is checked.

    Nothing is raised for a bad table, not even one without the right columns: ask the report's
    `ok`, or call `raise_if_failed`. With `out_dir`, checks.json and checks.html are written there.
    """
    # Great Expectations takes seconds to import
    from anymodal.checks.suite import check

    report = check(clips, params)
    if out_dir is not None:
        write_report(report, Path(out_dir))
    return report
