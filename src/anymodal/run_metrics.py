"""What a stage's results are called in MLflow: the scheme of `anymodal.tracking`, in one place.

The stages log what these functions give, and the pipeline's parent run takes over by them what DVC
left as it was. Each reads what its stage wrote (`artifacts/…/*.json`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anymodal.storage import read_json
from anymodal.tracking import HEADLINE, metric_name
from anymodal.workspace import Workspace

WAYS = ("audio_to_image", "image_to_audio")
BASELINES = ("pca", "random", "untranslated")
"""What stands beside the translation's retrieval scores; the last only where it was asked for."""


class Told(NamedTuple):
    """What a run is told: parameters that its pipeline's parent gets too, and metrics, of which
    the parent gets those under `summary/`."""

    params: dict[str, Any]
    metrics: dict[str, float]

    @property
    def headlines(self) -> dict[str, float]:
        """The parent's metrics by their own names."""
        return {
            name.removeprefix(HEADLINE): value
            for name, value in self.metrics.items()
            if name.startswith(HEADLINE)
        }


def over_seeds(what: str, of: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and, of two seeds or more, standard deviation (n − 1); nothing of no values."""
    if not len(values):
        return {}
    told = {metric_name(what, of): float(np.mean(values))}
    if len(values) > 1:
        told[metric_name(f"{what}_sd", of)] = float(np.std(values, ddof=1))
    return told


def ways(scores: Mapping[str, float]) -> dict[str, float]:
    """Both ways of a retrieval and their mean."""
    return {"mean": float(np.mean([scores[way] for way in WAYS])), **{w: scores[w] for w in WAYS}}


def of_dataset(told: Mapping[str, Any]) -> Told:
    """`dataset.json`: how many clips there are of each modality."""
    return Told({}, {f"{HEADLINE}rows/{m}": float(n) for m, n in told["rows"].items()})


def of_translation(told: Mapping[str, Any]) -> Told:
    """`training.json` of a pair: the losses that training stopped at, and how long it took."""
    losses = [training["valid_loss"] for training in told["seeds"]]
    metrics = over_seeds("valid_loss", "mean", losses)
    metrics["valid_loss/best"] = min(losses)
    metrics["epochs/mean"] = float(np.mean([training["epochs"] for training in told["seeds"]]))
    return Told({}, metrics)


def of_retrieval(scores: Mapping[str, Any]) -> Told:
    """Retrieval scores of a pair: the same names whatever the pair."""
    by_seed = [ways(entry) for entry in scores["translation"]]
    metrics: dict[str, float] = {}
    for way in ("mean", *WAYS):
        metrics |= over_seeds("ndcg", way, [one[way] for one in by_seed])
    for baseline in BASELINES:
        if baseline in scores:
            found = ways(scores[baseline]).items()
            metrics |= {metric_name(f"ndcg_{baseline}", way): value for way, value in found}
    return Told({}, metrics)


def of_selection(told: Mapping[str, Any]) -> Told:
    """`selection.json`: every pair's score; the best one's is the pipeline's."""
    ranking = told["ranking"]
    metrics = {
        metric_name("ndcg_of", entry["pair"].replace("+", "-")): entry["mean"] for entry in ranking
    }
    best = ranking[0]
    for way in ("mean", *WAYS):
        metrics[HEADLINE + metric_name("ndcg", way)] = best[way]
    # one seed has no spread, which the ranking writes as 0
    if best["std"] > 0:
        metrics[HEADLINE + "ndcg_sd/mean"] = best["std"]
    return Told({"best_pair": best["pair"]}, metrics)


def of_classification(told: Mapping[str, Any]) -> Told:
    """`results.json`: macro F1 of every system with its spread, interval and chance."""
    audio, _, image = told["pair"].partition("+")
    params = {
        "pair": told["pair"],
        "audio_encoder": audio,
        "image_encoder": image,
        "classes": len(told["classes"]),
    }
    metrics: dict[str, float] = {}
    for row in told["summary"]:
        of = (row["system"], row["regime"], row["target"])
        metrics[HEADLINE + metric_name("macro_f1", *of)] = row["mean"]
        if row["seeds"] > 1:
            metrics[HEADLINE + metric_name("macro_f1_sd", *of)] = row["std"]
        metrics[HEADLINE + metric_name("macro_f1_chance", row["target"])] = row["chance"]
    for one in told.get("intervals", ()):
        metrics |= _ends("macro_f1", (one["system"], one["regime"], one["target"]), one)
    for target, one in told.get("zero_shot_share", {}).items():
        if one["share"] is not None:
            metrics[HEADLINE + metric_name("zero_shot_share", target)] = one["share"]
            metrics |= _ends("zero_shot_share", (target,), one)
    return Told(params, metrics)


def of_judge(told: Mapping[str, Any]) -> dict[str, float]:
    """`judge.json`: calibration error, what fusion gains, and what is called unknown."""
    metrics: dict[str, float] = {}
    for modality, one in told["modalities"].items():
        for what in ("ece", "ece_of_votes", "known"):
            if one[what] is not None and np.isfinite(one[what]):
                metrics[metric_name(what, modality)] = one[what]
    if told["fusion"]["pairs"]:
        for what in ("audio", "image", "both"):
            metrics[metric_name("fusion_accuracy", what)] = told["fusion"][what]
    for kind, one in told["unknown"].items():
        metrics[metric_name("called_unknown", kind)] = one["unknown"]
    return metrics


def of_structure(told: Mapping[str, Any]) -> Told:
    """`structure.json`: of the translated spaces the mean over their seeds, and PCA's beside it."""
    metrics: dict[str, float] = {}
    for what, spaces in (("structure", told["translated"]), ("structure_pca", [told["pca"]])):
        for name, value in {"ratio": _ratio, "nearest_centroid": _nearest}.items():
            known = [found for found in map(value, spaces) if found is not None]
            metrics |= over_seeds(what, name, known)
    if "structure/ratio" in metrics:
        metrics[HEADLINE + "structure/ratio"] = metrics.pop("structure/ratio")
    return Told({}, metrics)


def of_across(told: Mapping[str, Any]) -> Told:
    """`across.json`: macro F1 within and across sources; the pipeline's are those across."""
    metrics: dict[str, float] = {}
    for target, found in told["targets"].items():
        for one in found.get("scores", ()):
            of, what = (one["system"], one["regime"], target), f"macro_f1_{one['protocol']}"
            headline = HEADLINE if one["protocol"] == "across" else ""
            metrics[headline + metric_name(what, *of)] = one["mean"]
            if one["seeds"] > 1:
                metrics[headline + metric_name(f"{what}_sd", *of)] = one["std"]
            metrics |= _ends(what, of, one)
    return Told({}, metrics)


def of_workspace(workspace: Workspace) -> dict[str, Told]:
    """What the stages whose results are there would tell, by the stage's name."""
    files: dict[str, tuple[Path, Any]] = {
        "dataset": (workspace.dataset, of_dataset),
        "select": (workspace.selection, of_selection),
        "classify": (workspace.classification / "results.json", of_classification),
        "structure": (workspace.structure / "structure.json", of_structure),
        "across": (workspace.across / "across.json", of_across),
    }
    return {stage: of(read_json(path)) for stage, (path, of) in files.items() if path.is_file()}


def _ends(what: str, of: tuple[str, ...], one: Mapping[str, Any]) -> dict[str, float]:
    return {
        metric_name(f"{what}_{end}", *of): one[end]
        for end in ("low", "high")
        if one[end] is not None
    }


def _ratio(space: Mapping[str, Any]) -> float | None:
    return space["ratio"]


def _nearest(space: Mapping[str, Any]) -> float | None:
    found = [space[way] for way in WAYS]
    return None if None in found else float(np.mean(found))
