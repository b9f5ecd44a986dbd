"""The figures of scores, retrieval, classes, mixing and training, as matplotlib figures.

Functions that draw one panel per modality or direction take those to draw: the page draws them one
by one, so that panels stand below each other on a phone. None uses pyplot or its global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from anymodal.core.modality import MODALITIES, Modality
from anymodal.evaluation.captions import DIRECTIONS, MODALITY_NAMES, REGIME_NAMES
from anymodal.evaluation.classification import (
    SINGLE,
    ClassificationResult,
    Regime,
    System,
    SystemKey,
    SystemScore,
)
from anymodal.evaluation.mixing import SYSTEMS
from anymodal.evaluation.per_class import ClassScores, class_scores
from anymodal.evaluation.retrieval import Directions, RetrievalResult
from anymodal.evaluation.significance import by_seed
from anymodal.projection.trainings import PairTrainings
from anymodal.report.drawing import PANEL, panels, styled
from anymodal.report.palette import HEAT_TURN, LIGHT, SYSTEM_COLOURS

_BASELINES = {
    "pca": ("D", "reduced", "PCA"),
    "random": ("s", "single", "random order"),
    "untranslated": ("v", "ink", "untranslated"),
}
"""Marker, colour and label of the baselines, as fields of `RetrievalResult`."""


@styled
def scores_figure(result: ClassificationResult, targets: Sequence[Modality] = MODALITIES) -> Figure:
    """Macro F1 of every system: a bar to the mean, a dot per seed, a dashed line at chance."""
    figure = panels(len(targets), 2.2)
    for place, target in enumerate(targets):
        axes = figure.add_subplot(1, len(targets), place + 1)
        axes.set_title(f"tested on {MODALITY_NAMES[target]}")
        _score_bars(axes, result, target)
    return figure


def _score_bars(axes: Axes, result: ClassificationResult, target: Modality) -> None:
    systems: tuple[SystemKey, ...] = (
        ("MMT", "zero-shot"),
        ("MMP", "zero-shot"),
        (SINGLE[target], "all"),
        ("MMT", "all"),
        ("MMP", "all"),
    )
    scores = [result.scores[*key, target] for key in systems if (*key, target) in result.scores]
    # half a bar between the regimes
    places = [place + 0.5 * (score.regime == "all") for place, score in enumerate(scores)]
    end = max([1.0, *(place + 1 for place in places)])
    for place, score in zip(places, scores, strict=True):
        colour = LIGHT[SYSTEM_COLOURS[score.system]]
        axes.barh(place, score.mean, height=0.66, color=colour)
        axes.text(
            1.04, place, f"{score.mean:.3f}", va="center", transform=axes.get_yaxis_transform()
        )
        seeds = [
            seed.macro_f1
            for seed in result.outcomes
            if (seed.system, seed.regime, seed.target) == score.key
        ]
        if len(seeds) > 1:
            heights = place + np.linspace(-0.2, 0.2, len(seeds))
            axes.plot(
                seeds, heights, "o", markersize=3.2, markerfacecolor=LIGHT["paper"],
                markeredgecolor=LIGHT["ink"], markeredgewidth=0.7, clip_on=False,
            )  # fmt: skip
    if scores:
        chance = scores[0].chance
        axes.axvline(chance, color=LIGHT["ink"], linewidth=1.0, linestyle=(0, (3, 2)))
        axes.text(chance + 0.015, end - 0.25, f"chance {chance:.3f}", va="center", fontsize=7)
    axes.set_yticks(places, [f"{s.system}, {REGIME_NAMES[s.regime]}" for s in scores])
    axes.set_ylim(end + 0.05, -0.55)
    axes.set_xlim(0, 1)
    axes.set_xlabel("macro F1")
    axes.grid(axis="x")


def retrieval_limits(results: Sequence[RetrievalResult]) -> tuple[float, float]:
    """Ends of the NDCG axis: around every score of both directions, within 0 and 1."""
    values = [
        getattr(scores, direction)
        for result in results
        for scores in (*result.translation, *_baselines(result).values())
        for direction in DIRECTIONS
    ]
    margin = max(0.06 * (max(values) - min(values)), 0.005)
    low, high = max(min(values) - margin, 0.0), min(max(values) + margin, 1.0)
    # an axis that nearly starts at 0 had better do so
    return (0.0 if low < 0.1 else low), high


def _baselines(result: RetrievalResult) -> dict[str, Directions]:
    scores = {name: getattr(result, name) for name in _BASELINES}
    return {name: each for name, each in scores.items() if each is not None}


@styled
def retrieval_figure(
    results: Sequence[RetrievalResult], chosen: str, directions: Sequence[str] = tuple(DIRECTIONS)
) -> Figure:
    """NDCG of every pair of encoders (paper, Fig. 2), best first; `chosen` is filled and bold.

    A dot at the mean over seeds, a line from the lowest to the highest, and the pair's baselines.
    All panels share one axis, which need not start at 0.
    """
    order = sorted(results, key=lambda r: (-np.mean([s.mean for s in r.translation]), r.pair))
    limits = retrieval_limits(results)
    figure = panels(len(directions), 0.75 + 0.36 * len(order))
    for place, direction in enumerate(directions):
        axes = figure.add_subplot(1, len(directions), place + 1)
        axes.set_title(DIRECTIONS[direction])
        _retrieval_dots(axes, order, chosen, direction)
        axes.set_xlim(*limits)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _retrieval_dots(
    axes: Axes, results: Sequence[RetrievalResult], chosen: str, direction: str
) -> None:
    blue = LIGHT["translated"]
    for place, result in enumerate(results):
        values = [getattr(seed, direction) for seed in result.translation]
        axes.plot([min(values), max(values)], [place, place], color=blue, linewidth=1.6)
        axes.plot(
            float(np.mean(values)), place, "o", markersize=6, color=blue, linestyle="none",
            markerfacecolor=blue if result.pair == chosen else LIGHT["paper"],
            label="translated" if place == 0 else None,
        )  # fmt: skip
        for name, scores in _baselines(result).items():
            marker, colour, label = _BASELINES[name]
            axes.plot(
                getattr(scores, direction), place, marker, markersize=4, color=LIGHT[colour],
                linestyle="none", label=label if place == 0 else None,
            )  # fmt: skip
    axes.set_yticks(range(len(results)), [r.pair.replace("+", " +\n") for r in results])
    for tick, result in zip(axes.get_yticklabels(), results, strict=True):
        tick.set_fontsize(7)
        tick.set_fontweight("bold" if result.pair == chosen else "normal")
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_xlabel(f"NDCG@{results[0].top_k}")
    axes.grid(axis="both")


def system_answers(
    predictions: pd.DataFrame, system: System, regime: Regime, target: Modality
) -> pd.DataFrame:
    """The predictions of one system, regime and target modality."""
    return predictions[
        (predictions["system"] == system)
        & (predictions["regime"] == regime)
        & (predictions["target"] == target)
    ]


def scores_by_class(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    system: System,
    regime: Regime,
    target: Modality,
) -> ClassScores:
    """Per-class F1 and confusion of one system on one target modality."""
    rows = system_answers(predictions, system, regime, target)
    if rows.empty:
        return class_scores([], [], classes)
    answered = by_seed(rows)
    return class_scores(answered.truth, answered.predicted, classes)


@styled
def confusion_figure(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    system: System,
    regime: Regime,
    target: Modality,
) -> Figure:
    """Confusion matrix, summed over seeds: shade is the share of the true class, the number its
    rows; an empty cell is a zero."""
    counts = scores_by_class(predictions, classes, system, regime, target).confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = PANEL if len(classes) <= 12 else PANEL * 1.3
    figure = panels(1, side, side)
    axes = figure.add_subplot()
    # the longest number fills its cell at most; names take about 70 points of the side
    cell = (72 * side - 70) / len(classes)
    size = min(7.5, 0.85 * cell / (0.64 * len(str(counts.max(initial=1)))))
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = float(shares[row, column])
        axes.add_artist(
            Rectangle((column, row), 1, 1, facecolor=LIGHT["heat"], alpha=share, linewidth=0)
        )
        axes.text(
            column + 0.5, row + 0.5, f"{counts[row, column]}", ha="center", va="center",
            fontsize=size, color=LIGHT["heat-high" if share > HEAT_TURN else "heat-low"],
        )  # fmt: skip
    middles, end = np.arange(len(classes)) + 0.5, len(classes)
    axes.set_xticks(middles, classes, rotation=90)
    axes.set_yticks(middles, classes)
    axes.tick_params(axis="x", length=0, labelcolor=LIGHT["ink"])
    axes.set(xlim=(0, end), ylim=(end, 0), aspect="equal", xlabel="predicted", ylabel="true")
    for edge in axes.spines.values():
        edge.set_visible(True)
        edge.set_color(LIGHT["rule"])
    axes.set_xticks(np.arange(1, end), minor=True)
    axes.set_yticks(np.arange(1, end), minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor")
    return figure


@styled
def class_f1_figure(predictions: pd.DataFrame, classes: Sequence[str], target: Modality) -> Figure:
    """F1 of each class, mean over seeds: MMT zero-shot as bars, the single-modality system and
    MMT on all data as markers (paper, Fig. 5)."""
    figure = panels(1, 0.95 + 0.21 * len(classes))
    axes = figure.add_subplot()
    places = np.arange(len(classes))
    zero_shot = scores_by_class(predictions, classes, "MMT", "zero-shot", target).mean
    # pale, so that markers of the same colour show on it
    style: Any = {"height": 0.66, "color": LIGHT["translated"], "alpha": 0.45}
    handles: list[Any] = [
        axes.barh(places, np.nan_to_num(zero_shot), label="MMT, zero-shot", **style)
    ]
    for system, marker, colour in ((SINGLE[target], "D", "single"), ("MMT", "o", "translated")):
        if system_answers(predictions, system, "all", target).empty:
            continue
        handles += axes.plot(
            scores_by_class(predictions, classes, system, "all", target).mean, places, marker,
            markersize=5, markerfacecolor=LIGHT[colour], markeredgecolor=LIGHT["paper"],
            markeredgewidth=0.8, label=f"{system}, all data", clip_on=False,
        )  # fmt: skip
    axes.set_yticks(places, classes)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1")
    axes.grid(axis="x")
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.0)
    return figure


@styled
def mixing_figure(
    curve: pd.DataFrame, target: Modality, single: SystemScore | None = None
) -> Figure:
    """Macro F1 by samples of the target modality (paper, Fig. 3).

    A box spans the middle half of the draws, its whiskers all of them; `single` is a dashed line.
    Points stand equally far apart, as in the paper, because their samples grow by factors.
    """
    rows = curve[curve["target"] == target]
    points = sorted(rows["samples"].unique())
    figure = panels(1, 2.6)
    axes = figure.add_subplot()
    handles: list[Any] = []
    for system, offset in zip(SYSTEMS, (-0.19, 0.19), strict=True):
        own = rows[rows["system"] == system]
        colour = LIGHT[SYSTEM_COLOURS[system]]
        boxes = axes.boxplot(
            [own.loc[own["samples"] == point, "macro_f1"].to_numpy() for point in points],
            positions=[place + offset for place in range(len(points))],
            widths=0.3,
            whis=(0, 100),
            patch_artist=True,
            manage_ticks=False,
            medianprops={"color": LIGHT["ink"], "linewidth": 0.9},
            boxprops={"facecolor": colour, "edgecolor": colour},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )["boxes"]
        boxes[0].set_label(system)
        handles.append(boxes[0])
    if single is not None:
        line: Any = {"color": LIGHT["single"], "linewidth": 1.2, "linestyle": (0, (4, 2))}
        handles.append(axes.axhline(single.mean, label=f"{single.system}, all its rows", **line))
    axes.set_xticks(range(len(points)), [f"{point:,}" for point in points])
    axes.set_xlim(-0.6, len(points) - 0.4)
    axes.set_ylim(0, 1)
    axes.set_xlabel("rows of the target modality mixed in")
    axes.set_ylabel("macro F1")
    axes.grid(axis="y")
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@styled
def training_figure(trainings: PairTrainings) -> Figure:
    """Validation loss by epoch, a line per seed, with a dot at the epoch that was kept."""
    figure = panels(1, 2.3)
    axes = figure.add_subplot()
    for training in trainings.seeds:
        epochs = [epoch.epoch for epoch in training.history]
        losses = np.array([epoch.valid_loss for epoch in training.history], dtype=float)
        axes.plot(epochs, losses, color=LIGHT["translated"], linewidth=1.1, alpha=0.6)
        axes.plot(
            training.best_epoch, training.valid_loss, "o", markersize=4.5,
            markerfacecolor=LIGHT["translated"], markeredgecolor=LIGHT["paper"],
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    return figure
