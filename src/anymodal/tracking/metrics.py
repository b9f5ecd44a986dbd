"""The MLflow metrics of each stage's result; docs/runs.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.classifier.assessment import CalibrationResult
from anymodal.core.record import Record
from anymodal.core.workspace import Workspace
from anymodal.data.info import DatasetInfo
from anymodal.evaluation.classification import ClassificationResult
from anymodal.evaluation.cross_source_scores import CrossSourceResult
from anymodal.evaluation.retrieval import Directions, RetrievalResult
from anymodal.evaluation.selection import Selection
from anymodal.evaluation.structure import SpaceStructure, StructureResult
from anymodal.projection.trainings import PairTrainings
from anymodal.tracking.metric_names import HEADLINE, LoggedMetrics, metric_name

DIRECTIONS = ("mean", "audio_to_image", "image_to_audio")


def over_seeds(what: str, of: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and, of two seeds or more, standard deviation (n − 1)."""
    if not len(values):
        return {}
    metrics = {metric_name(what, of): float(np.mean(values))}
    if len(values) > 1:
        metrics[metric_name(f"{what}_sd", of)] = float(np.std(values, ddof=1))
    return metrics


def by_direction(scores: Directions) -> dict[str, float]:
    """Both directions and their mean."""
    return {name: getattr(scores, name) for name in DIRECTIONS}


def of_dataset(info: DatasetInfo) -> LoggedMetrics:
    """The number of clips of each modality."""
    return LoggedMetrics({}, {f"{HEADLINE}rows/{m}": float(n) for m, n in info.rows.items()})


def of_translation(trainings: PairTrainings) -> LoggedMetrics:
    """Validation losses and numbers of epochs of a pair."""
    losses = [training.valid_loss for training in trainings.seeds]
    metrics = over_seeds("valid_loss", "mean", losses)
    metrics["valid_loss/best"] = min(losses)
    metrics["epochs/mean"] = float(np.mean([training.epochs for training in trainings.seeds]))
    return LoggedMetrics({}, metrics)


def of_retrieval(result: RetrievalResult) -> LoggedMetrics:
    """NDCG of a pair, beside its baselines."""
    by_seed = [by_direction(seed) for seed in result.translation]
    metrics: dict[str, float] = {}
    for direction in DIRECTIONS:
        metrics |= over_seeds("ndcg", direction, [scores[direction] for scores in by_seed])
    baselines = {"pca": result.pca, "random": result.random, "untranslated": result.untranslated}
    for name, scores in baselines.items():
        if scores is not None:
            named = by_direction(scores).items()
            metrics |= {metric_name(f"ndcg_{name}", of): value for of, value in named}
    return LoggedMetrics({}, metrics)


def of_selection(selection: Selection) -> LoggedMetrics:
    """Every pair's mean NDCG; the best one's is the pipeline's."""
    metrics = {
        metric_name("ndcg_of", ranked.pair.replace("+", "-")): ranked.mean
        for ranked in selection.ranking
    }
    best = selection.ranking[0]
    for direction in DIRECTIONS:
        metrics[HEADLINE + metric_name("ndcg", direction)] = getattr(best, direction)
    if best.std > 0:  # one seed has no spread
        metrics[HEADLINE + "ndcg_sd/mean"] = best.std
    return LoggedMetrics({"best_pair": best.pair}, metrics)


def of_classification(result: ClassificationResult) -> LoggedMetrics:
    """Macro F1 of every system with its spread, interval and chance."""
    audio, _, image = result.pair.partition("+")
    params = {
        "pair": result.pair,
        "audio_encoder": audio,
        "image_encoder": image,
        "classes": len(result.classes),
    }
    metrics: dict[str, float] = {}
    for score in result.summary:
        metrics[HEADLINE + metric_name("macro_f1", *score.key)] = score.mean
        if score.seeds > 1:
            metrics[HEADLINE + metric_name("macro_f1_sd", *score.key)] = score.std
        metrics[HEADLINE + metric_name("macro_f1_chance", score.target)] = score.chance
    for interval in result.intervals:
        of = (interval.system, interval.regime, interval.target)
        metrics |= _ends("macro_f1", of, interval.low, interval.high)
    for target, share in result.zero_shot_share.items():
        if share.share is not None:
            metrics[HEADLINE + metric_name("zero_shot_share", target)] = share.share
            metrics |= _ends("zero_shot_share", (target,), share.low, share.high)
    return LoggedMetrics(params, metrics)


def of_calibration(result: CalibrationResult) -> LoggedMetrics:
    """Calibration error, what fusion gains, and what is called unknown."""
    metrics: dict[str, float] = {}
    for modality, measured in result.modalities.items():
        for what in ("ece", "ece_of_votes", "known"):
            value = getattr(measured, what)
            if value is not None:
                metrics[metric_name(what, modality)] = value
    if result.fusion.pairs:
        for what in ("audio", "image", "both"):
            metrics[metric_name("fusion_accuracy", what)] = getattr(result.fusion, what)
    for kind, rate in result.unknown.items():
        metrics[metric_name("called_unknown", kind)] = rate.unknown
    return LoggedMetrics({}, metrics)


def of_structure(result: StructureResult) -> LoggedMetrics:
    """The translated spaces' mean over their seeds, and PCA's beside it."""
    metrics: dict[str, float] = {}
    spaces: dict[str, Sequence[SpaceStructure]] = {
        "structure": result.translated,
        "structure_pca": (result.pca,),
    }
    for what, measured in spaces.items():
        ratios = [space.ratio for space in measured if space.ratio is not None]
        metrics |= over_seeds(what, "ratio", ratios)
        accuracies = [space.accuracy for space in measured if space.accuracy is not None]
        metrics |= over_seeds(what, "nearest_centroid", accuracies)
    if "structure/ratio" in metrics:
        metrics[HEADLINE + "structure/ratio"] = metrics.pop("structure/ratio")
    return LoggedMetrics({}, metrics)


def of_cross_source(result: CrossSourceResult) -> LoggedMetrics:
    """Macro F1 of every protocol; the pipeline's is the one across sources."""
    metrics: dict[str, float] = {}
    for target, measured in result.targets.items():
        for score in measured.scores:
            of, what = (score.system, score.regime, target), f"macro_f1_{score.protocol}"
            headline = HEADLINE if score.protocol == "cross_source" else ""
            metrics[headline + metric_name(what, *of)] = score.mean
            if score.seeds > 1:
                metrics[headline + metric_name(f"{what}_sd", *of)] = score.std
            metrics |= _ends(what, of, score.low, score.high)
    return LoggedMetrics({}, metrics)


def of_workspace(workspace: Workspace) -> dict[str, LoggedMetrics]:
    """The metrics of the stages whose results exist, by stage."""
    results: dict[str, tuple[Path, type[Record], Callable[[Any], LoggedMetrics]]] = {
        "dataset": (workspace.dataset, DatasetInfo, of_dataset),
        "select": (workspace.selection, Selection, of_selection),
        "classify": (workspace.classification, ClassificationResult, of_classification),
        "structure": (workspace.structure, StructureResult, of_structure),
        "cross_source": (workspace.cross_source, CrossSourceResult, of_cross_source),
    }
    return {
        stage: of(kind.read(path, stage))
        for stage, (path, kind, of) in results.items()
        if path.is_file()
    }


def _ends(
    what: str, of: Sequence[str], low: float | None, high: float | None
) -> Mapping[str, float]:
    ends = {"low": low, "high": high}
    return {
        metric_name(f"{what}_{end}", *of): value for end, value in ends.items() if value is not None
    }
