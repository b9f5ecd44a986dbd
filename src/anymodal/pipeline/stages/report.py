"""Stage `report`: one page that leads from the question to the answer.

The page names no commit: it is an output of DVC, the same for the same inputs. Being the last
stage, it also completes the registered classifier's model card.
"""

from __future__ import annotations

from pathlib import Path

from anymodal.pipeline.context import Context
from anymodal.report import build_report
from anymodal.tracking import registry


def report(context: Context) -> Path:
    """Run the stage; return the page's path."""
    with context.stage_run("report") as run:
        path = build_report(context.workspace, context.params)
        run.log_file(path)
        if context.params.tracking.register_models:
            registry.describe_classifier(context.workspace, context.params.tracking)
    return path
