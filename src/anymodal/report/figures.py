"""The figures, from plain tables, as matplotlib figures.

Figures with one panel a modality or direction take the ones to draw as an argument: the page asks
for one at a time, so that panels stand below one another on a phone.

Drawn without pyplot: no global state, no display, and the same tables give the same drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from anymodal.classification import SINGLE
from anymodal.encoders.base import MODALITIES
from anymodal.report.drawing import PANEL, panels, styled
from anymodal.report.names import REGIME_NAMES, THINGS, WAY_NAMES, WAYS
from anymodal.report.palette import HEAT_TURN, LIGHT, SYSTEM_COLOURS
from anymodal.report.tables import answers, class_f1, confusion_counts

_BASELINES = {
    "pca": ("D", "reduced", "PCA"),
    "random": ("s", "single", "random order"),
    "untranslated": ("v", "ink", "untranslated"),
}
"""Marker, colour and label of what stands beside the translation's scores, where it was scored."""


@styled
def scores_figure(
    summary: pd.DataFrame,
    outcomes: pd.DataFrame | None = None,
    targets: Sequence[str] = MODALITIES,
) -> Figure:
    """Macro F1 of every system, zero-shot and on all data, one panel a target modality.

    `summary` as `anymodal.classification.summarise` gives it; `outcomes` (columns system, regime,
    target, seed, macro_f1), where given, puts a dot for each seed, else bars carry their range.
    """
    figure = panels(len(targets), 2.2)
    for place, target in enumerate(targets):
        axes = figure.add_subplot(1, len(targets), place + 1)
        axes.set_title(f"tested on {THINGS.get(target, target)}")
        _score_bars(axes, summary, outcomes, target)
    return figure


def _score_bars(
    axes: Axes, summary: pd.DataFrame, outcomes: pd.DataFrame | None, target: str
) -> None:
    table = summary[summary["target"] == target] if len(summary) else summary
    wanted = [("zero-shot", system) for system in ("MMT", "MMP")]
    wanted += [("all", system) for system in (_single(target), "MMT", "MMP")]
    labels: list[str] = []
    places: list[float] = []
    place, before = 0.0, "zero-shot"
    for regime, system in wanted:
        rows = (
            table[(table["regime"] == regime) & (table["system"] == system)]
            if len(table)
            else table
        )
        if rows.empty:
            continue
        if regime != before and labels:
            place += 0.5  # room between the regimes
        before = regime
        _score_bar(axes, rows.iloc[0], outcomes, place)
        labels.append(f"{system}, {REGIME_NAMES[regime]}")
        places.append(place)
        place += 1
    if len(table):
        chance = float(table["chance"].iloc[0])
        axes.axvline(chance, color=LIGHT["ink"], linewidth=1.0, linestyle=(0, (3, 2)))
        axes.text(chance + 0.015, place - 0.25, f"chance {chance:.3f}", va="center", fontsize=7)
    axes.set_yticks(places, labels)
    axes.set_ylim(max(place, 1) + 0.05, -0.55)
    axes.set_xlim(0, 1)
    axes.set_xlabel("macro F1")
    axes.grid(axis="x")


def _score_bar(axes: Axes, row: pd.Series, outcomes: pd.DataFrame | None, place: float) -> None:
    axes.barh(
        place, row["mean"], height=0.66, color=LIGHT[SYSTEM_COLOURS.get(row["system"], "single")]
    )
    axes.text(1.04, place, f"{row['mean']:.3f}", va="center", transform=axes.get_yaxis_transform())
    if outcomes is None or outcomes.empty:
        if row["seeds"] > 1:
            axes.plot([row["min"], row["max"]], [place, place], color=LIGHT["ink"], linewidth=1.2)
        return
    dots = answers(outcomes, row["system"], row["regime"], row["target"]).sort_values("seed")
    if len(dots) > 1:
        axes.plot(
            dots["macro_f1"],
            place + np.linspace(-0.2, 0.2, len(dots)),
            "o",
            markersize=3.2,
            markerfacecolor=LIGHT["paper"],
            markeredgecolor=LIGHT["ink"],
            markeredgewidth=0.7,
            clip_on=False,
        )


def retrieval_limits(scores: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Ends of the NDCG axis: what holds every score of both directions, within 0 and 1."""
    values = [
        float(entry[way])
        for score in scores
        for entry in (
            *score["translation"],
            *(score[name] for name in _BASELINES if score.get(name)),
        )
        for way in WAYS
    ]
    if not values:
        return 0.0, 1.0
    room = max(0.06 * (max(values) - min(values)), 0.005)
    low, high = max(min(values) - room, 0.0), min(max(values) + room, 1.0)
    # an axis that nearly starts at 0 had better do so
    return (0.0 if low < 0.1 else low), high


@styled
def retrieval_figure(
    scores: Sequence[Mapping[str, Any]], chosen: str, ways: Sequence[str] = WAYS
) -> Figure:
    """NDCG of every pair of encoders, one panel a direction (paper, Fig. 2).

    `scores` are the pairs' retrieval results as `retrieval/<pair>.json` holds them: a dot at the
    mean over seeds, a line from the lowest to the highest, and the pair's own baselines. `chosen`
    is drawn filled and bold. All panels share one axis, which need not start at 0: see
    `retrieval_limits`.
    """
    ordered = sorted(scores, key=lambda score: (-_mean_score(score), score["pair"]))
    figure = panels(len(ways), 0.75 + 0.36 * len(ordered))
    for place, way in enumerate(ways):
        axes = figure.add_subplot(1, len(ways), place + 1)
        axes.set_title(WAY_NAMES.get(way, way))
        _retrieval_dots(axes, ordered, chosen, way)
        if ordered and place == 0:
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _mean_score(score: Mapping[str, Any]) -> float:
    return float(np.mean([[entry[way] for way in WAYS] for entry in score["translation"]]))


def _retrieval_dots(axes: Axes, scores: Sequence[Mapping[str, Any]], chosen: str, way: str) -> None:
    blue = LIGHT["translated"]
    for place, score in enumerate(scores):
        values = [float(entry[way]) for entry in score["translation"]]
        axes.plot([min(values), max(values)], [place, place], color=blue, linewidth=1.6)
        axes.plot(
            float(np.mean(values)),
            place,
            "o",
            markersize=6,
            color=blue,
            markerfacecolor=blue if score["pair"] == chosen else LIGHT["paper"],
            linestyle="none",
            label="translated" if place == 0 else None,
        )
        for name, (marker, colour, label) in _BASELINES.items():
            if not score.get(name):
                continue
            axes.plot(
                float(score[name][way]),
                place,
                marker,
                markersize=4,
                color=LIGHT[colour],
                linestyle="none",
                label=label if place == 0 else None,
            )
    names = [score["pair"].replace("+", " +\n") for score in scores]
    axes.set_yticks(range(len(scores)), names)
    for tick, score in zip(axes.get_yticklabels(), scores, strict=True):
        tick.set_fontsize(7)
        tick.set_fontweight("bold" if score["pair"] == chosen else "normal")
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.set_xlim(*retrieval_limits(scores))
    axes.set_xlabel(f"NDCG@{scores[0]['top_k']}" if scores else "NDCG")
    axes.grid(axis="both")


@styled
def confusion_figure(
    predictions: pd.DataFrame, classes: Sequence[str], system: str, regime: str, target: str
) -> Figure:
    """Confusion matrix: shade is the share of the true class, the number its rows.

    Rows of all seeds are added up; an empty cell is a zero.
    """
    table = confusion_counts(answers(predictions, system, regime, target), classes)
    names = [str(name) for name in table.index]
    counts = table.to_numpy(dtype=int)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = PANEL if len(names) <= 12 else PANEL * 1.3
    figure = panels(1, side, side)
    axes = figure.add_subplot()
    # the longest number fills its cell at most; names take about 70 points of the side
    cell = (72 * side - 70) / max(len(names), 1)
    size = min(7.5, 0.85 * cell / (0.64 * len(str(counts.max(initial=1)))))
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = float(shares[row, column])
        axes.add_patch(
            Rectangle((column, row), 1, 1, facecolor=LIGHT["heat"], alpha=share, linewidth=0)
        )
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{counts[row, column]}",
            ha="center",
            va="center",
            fontsize=size,
            color=LIGHT["heat-high" if share > HEAT_TURN else "heat-low"],
        )
    middles, ends = np.arange(len(names)) + 0.5, max(len(names), 1)
    axes.set_xticks(middles, names, rotation=90)
    axes.set_yticks(middles, names)
    axes.tick_params(axis="x", length=0, labelcolor=LIGHT["ink"])
    axes.set(xlim=(0, ends), ylim=(ends, 0), aspect="equal", xlabel="named as", ylabel="truth")
    for edge in axes.spines.values():
        edge.set_visible(True)
        edge.set_color(LIGHT["rule"])
    axes.set_xticks(np.arange(1, len(names)), minor=True)
    axes.set_yticks(np.arange(1, len(names)), minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor")
    return figure


@styled
def class_f1_figure(predictions: pd.DataFrame, classes: Sequence[str], target: str) -> Figure:
    """F1 of each class, mean over seeds: MMT zero-shot as bars, the single-modality system and
    MMT on all data as markers (paper, Fig. 5)."""
    zero = class_f1(answers(predictions, "MMT", "zero-shot", target), classes)
    names = [str(name) for name in zero.index]
    places = np.arange(len(names))
    figure = panels(1, 0.95 + 0.21 * len(names))
    axes = figure.add_subplot()
    # pale, so that markers of the same colour show on it
    style: Any = {"height": 0.66, "color": LIGHT["translated"], "alpha": 0.45}
    handles: list[Any] = [axes.barh(places, zero.fillna(0), label="MMT, zero-shot", **style)]
    for system, marker, colour in ((_single(target), "D", "single"), ("MMT", "o", "translated")):
        rows = answers(predictions, system, "all", target)
        if rows.empty:
            continue
        handles += axes.plot(
            class_f1(rows, classes).reindex(zero.index),
            places,
            marker,
            markersize=5,
            markerfacecolor=LIGHT[colour],
            markeredgecolor=LIGHT["paper"],
            markeredgewidth=0.8,
            label=f"{system}, all data",
            clip_on=False,
        )
    axes.set_yticks(places, names)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1")
    axes.grid(axis="x")
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.0)
    return figure


@styled
def training_figure(losses: pd.DataFrame) -> Figure:
    """Validation loss by epoch, a line a seed, with a dot at the epoch that was kept.

    `losses` has columns seed, epoch (from 1) and valid_loss; missing losses leave gaps.
    """
    figure = panels(1, 2.3)
    axes = figure.add_subplot()
    for _, one in losses.groupby("seed", sort=True):
        values = pd.to_numeric(one["valid_loss"]).to_numpy(dtype=float)
        axes.plot(one["epoch"], values, color=LIGHT["translated"], linewidth=1.1, alpha=0.6)
        finite = np.where(np.isfinite(values), values, np.inf)
        best = int(np.argmin(finite))
        if np.isfinite(finite[best]):
            axes.plot(
                one["epoch"].iloc[best],
                values[best],
                "o",
                markersize=4.5,
                markerfacecolor=LIGHT["translated"],
                markeredgecolor=LIGHT["paper"],
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    return figure


def _single(target: str) -> str:
    return {str(modality): str(system) for modality, system in SINGLE.items()}.get(target, "SM")
