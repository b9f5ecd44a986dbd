"""Stage `check`: refuse data that would make the results meaningless."""

from __future__ import annotations

from anymodal.data.checks import CheckReport, run_checks
from anymodal.data.quality import read_quality
from anymodal.pipeline.context import Context


def check(context: Context) -> CheckReport:
    """Run the stage; raise `AnymodalError`, after the results are written, when a check failed."""
    workspace, params = context.workspace, context.params
    with context.stage_run("check") as run:
        quality = read_quality(workspace.quality)
        report = run_checks(context.clips, params.check, workspace.checks, quality)
        failed = [result for result in report.results if not result.success]
        errors = [result for result in failed if result.severity == "error"]
        run.log_metrics(
            {
                "checks/passed": len(report.results) - len(failed),
                "checks/warnings": len(failed) - len(errors),
                "checks/failed": len(errors),
            }
        )
        run.log_file(workspace.checks, "checks")
        report.raise_if_failed()
    return report
