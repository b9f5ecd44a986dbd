"""Checks of a clip table with Great Expectations, before anything is trained on it.

`run_checks` returns a `CheckReport`; given a folder it also writes checks.json, checks.html and
Data Docs. All depend on the table and the parameters alone (no times, no machine), so that a
pipeline can compare them between runs.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from anymodal.checks.report import CheckReport, CheckResult, write_report
from anymodal.params import CheckParams

__all__ = ["CheckReport", "CheckResult", "run_checks"]


def run_checks(
    clips: pd.DataFrame,
    params: CheckParams,
    out_dir: str | Path | None = None,
    quality: pd.DataFrame | None = None,
) -> CheckReport:
    """Check a clip table whose subsets are drawn; see `anymodal.checks.suite` for what is checked.

    quality: what was measured of the clips' media (`anymodal.dataset.quality`); None or no rows:
    there are none to be judged.

    Nothing is raised for a bad table, not even one without the right columns: ask the report's
    `ok`, or call `raise_if_failed`. With `out_dir`, checks.json, checks.html and Great
    Expectations' Data Docs (data_docs/index.html) are written there.
    """
    # Great Expectations takes seconds to import
    from anymodal.checks.suite import check

    report, validations = check(clips, params, quality)
    if out_dir is not None:
        from anymodal.checks.datadocs import write_data_docs

        write_report(report, Path(out_dir))
        write_data_docs(validations, Path(out_dir) / "data_docs")
    return report
