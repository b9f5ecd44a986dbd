"""Stage `select`: the pair of encoders that retrieves best goes on to classification."""

from __future__ import annotations

from typing import Any

import numpy as np

from anymodal.errors import AnymodalError
from anymodal.params import Params
from anymodal.registry import crown_translation
from anymodal.report.figures import retrieval_figure
from anymodal.run_metrics import of_selection
from anymodal.stages.base import Context, basis
from anymodal.storage import read_json, write_json
from anymodal.tracking import stage_run
from anymodal.workspace import Workspace, pair_name

RULE = "highest mean over seeds and both directions of NDCG after translation (paper, section 4.1)"


def select(context: Context) -> list[dict[str, Any]]:
    """Run the stage; return the ranking, best pair first."""
    workspace, params = context.workspace, context.params
    scores = []
    for audio, image in params.embed.pairs:
        path = workspace.retrieval(pair_name(audio, image))
        if not path.is_file():
            raise AnymodalError(f"no {path}; run `anymodal retrieve` first")
        scores.append(read_json(path))
    ranking = rank(scores)
    best = ranking[0]
    with stage_run("select", params, basis(workspace)) as run:
        chosen = {
            "pair": best["pair"],
            "audio": best["audio"],
            "image": best["image"],
            "rule": RULE,
            "ranking": ranking,
        }
        told = of_selection(chosen)
        run.log_params(told.params, headline=True)
        run.log_metrics(told.metrics)
        run.log_figure(retrieval_figure(scores, best["pair"]), "retrieval.png")
        write_json(workspace.selection, chosen)
        if params.tracking.register_models:
            crown_translation(workspace, best["pair"], params, run)
    return ranking


def rank(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order retrieval results by their mean over seeds and directions; ties by name."""
    ranking = []
    for score in scores:
        ways = {
            way: np.array([entry[way] for entry in score["translation"]])
            for way in ("audio_to_image", "image_to_audio")
        }
        both = (ways["audio_to_image"] + ways["image_to_audio"]) / 2
        ranking.append(
            {
                "pair": score["pair"],
                "audio": score["audio"],
                "image": score["image"],
                "audio_to_image": float(ways["audio_to_image"].mean()),
                "image_to_audio": float(ways["image_to_audio"].mean()),
                "mean": float(both.mean()),
                "std": float(both.std(ddof=1)) if len(both) > 1 else 0.0,
            }
        )
    return sorted(ranking, key=lambda entry: (-entry["mean"], entry["pair"]))


def selected_pair(workspace: Workspace, params: Params) -> tuple[str, str]:
    """The pair that later stages use: the selected one, or the one that params.yaml names."""
    if params.classify.pair == "best":
        if not workspace.selection.is_file():
            raise AnymodalError(f"no {workspace.selection}; run `anymodal select` first")
        chosen = read_json(workspace.selection)
        return chosen["audio"], chosen["image"]
    for audio, image in params.embed.pairs:
        if params.classify.pair == pair_name(audio, image):
            return audio, image
    known = ", ".join(pair_name(audio, image) for audio, image in params.embed.pairs)
    raise AnymodalError(f"classify.pair {params.classify.pair!r} is none of: best, {known}")
