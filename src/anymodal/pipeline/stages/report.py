"""Stage `report`: one page that leads from the question to the answer.

The page names no commit: it is an output of DVC, which must be the same for the same inputs. The
run has the commit. Being the last stage, it also fills in the classifier's model card.
"""

from __future__ import annotations

from pathlib import Path

from anymodal.model_card_store import describe_classifier
from anymodal.report import build_report
from anymodal.stages.base import Context, basis
from anymodal.tracking import stage_run


def report(context: Context) -> Path:
    """Run the stage; return the page's path."""
    with stage_run("report", context.params, basis(context.workspace)) as run:
        path = build_report(context.workspace, context.params)
        run.log_file(path)
        if context.params.tracking.register_models:
            describe_classifier(context.workspace, context.params)
    return path
