"""Stage `select`: the pair of encoders that retrieves best is classified with."""

from __future__ import annotations

from anymodal.core.workspace import pair_name
from anymodal.evaluation.retrieval import RetrievalResult
from anymodal.evaluation.selection import Selection, select_pair
from anymodal.pipeline.context import Context
from anymodal.report.figures import retrieval_figure
from anymodal.tracking import registry
from anymodal.tracking.metrics import of_selection


def select(context: Context) -> Selection:
    """Run the stage."""
    workspace, params = context.workspace, context.params
    results = [
        RetrievalResult.read(workspace.retrieval(pair_name(*pair)), "retrieve")
        for pair in params.embed.pairs
    ]
    selection = select_pair(results)
    with context.stage_run("select") as run:
        logged = of_selection(selection)
        run.log_params(logged.params, headline=True)
        run.log_metrics(logged.metrics)
        run.log_figure(retrieval_figure(results, selection.pair), "retrieval.png")
        selection.write(workspace.selection)
        if params.tracking.register_models:
            registry.promote_translation(workspace, selection.pair, run)
    return selection
