"""Stage `check`: refuse data that would make the results meaningless."""

from __future__ import annotations

from anymodal.checks import CheckReport, run_checks
from anymodal.dataset.quality import read_quality
from anymodal.stages.base import Context, basis, drawn_clips
from anymodal.tracking import stage_run


def check(context: Context) -> CheckReport:
    """Run the stage; raise `AnymodalError`, after the results are written, when a check failed."""
    workspace, params = context.workspace, context.params
    clips = drawn_clips(workspace)
    with stage_run("check", params, basis(workspace)) as run:
        quality = read_quality(workspace.quality)
        report = run_checks(clips, params.check, workspace.checks, quality)
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
