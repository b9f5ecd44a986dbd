"""Figures of the joint space and of what trained it: the paper's Figs. 3, 4 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from anymodal.report.drawing import PANEL, panels, styled
from anymodal.report.names import THINGS
from anymodal.report.palette import LIGHT, SYSTEM_COLOURS
from anymodal.structure import Structure

_MARKS = {"audio": "s", "image": "p"}
"""What follows a class's name: s for its sounds, p for its pictures."""
_NAMED = 24
"""Rows of a matrix that have room for letters a phone can show."""


@styled
def mixing_figure(
    curve: pd.DataFrame, target: str, single: tuple[str, Sequence[float]] | None = None
) -> Figure:
    """Macro F1 by samples of the target modality: a box a point of MMT and MMP (paper, Fig. 3).

    `curve` has the columns system, target, samples, draw and macro_f1; a box spans the middle half
    of the draws, its whiskers all of them. `single` is the name of the single-modality system and
    its score with each seed: a dashed line at the mean. Points stand equally far apart, as in the
    paper, for the numbers of samples grow by factors.
    """
    rows = curve[curve["target"] == target]
    points = sorted(rows["samples"].unique())
    figure = panels(1, 2.6)
    axes = figure.add_subplot()
    handles: list[Any] = []
    for system, offset in (("MMT", -0.19), ("MMP", 0.19)):
        own = rows[rows["system"] == system]
        if own.empty:
            continue
        colour = LIGHT[SYSTEM_COLOURS[system]]
        boxes = [own.loc[own["samples"] == point, "macro_f1"].to_numpy() for point in points]
        drawn = axes.boxplot(
            boxes,
            positions=[place + offset for place in range(len(points))],
            widths=0.3,
            whis=(0, 100),
            patch_artist=True,
            manage_ticks=False,
            medianprops={"color": LIGHT["ink"], "linewidth": 0.9},
            boxprops={"facecolor": colour, "edgecolor": colour},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        drawn["boxes"][0].set_label(system)
        handles.append(drawn["boxes"][0])
    if single is not None:
        name, scores = single
        handles.append(
            axes.axhline(
                float(np.mean(scores)),
                color=LIGHT["single"],
                linewidth=1.2,
                linestyle=(0, (4, 2)),
                label=f"{name}, all its rows",
            )
        )
    axes.set_xticks(range(len(points)), [f"{point:,}" for point in points])
    axes.set_xlim(-0.6, max(len(points), 1) - 0.4)
    axes.set_ylim(0, 1)
    axes.set_xlabel("rows of the target modality mixed in")
    axes.set_ylabel("macro F1")
    axes.grid(axis="y")
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@styled
def structure_figure(found: Structure, by: Literal["modality", "instrument"]) -> Figure:
    """Distances between the centroids of every class in both modalities (paper, Fig. 4).

    Shade is nearness: darkest at distance 0, none at the largest distance of this space. Sorted by
    modality, or by instrument, where a class's own square on the diagonal is outlined.
    """
    order = found.order(by)
    distances = found.distances[np.ix_(order, order)]
    clusters = [found.clusters[row] for row in order]
    largest = float(distances.max(initial=0.0))
    side = PANEL if len(clusters) <= _NAMED else PANEL * 1.35
    figure = panels(1, side + 0.25, side)
    axes = figure.add_subplot()
    for row, column in np.ndindex(*distances.shape):
        near = 1.0 - distances[row, column] / largest if largest else 1.0
        if near > 0.004:
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor=LIGHT["heat"], alpha=near, linewidth=0)
            )
    places, names = _blocks(clusters, by)
    if by == "instrument":
        for (start, end), _ in zip(places, names, strict=True):
            outline: Any = {"fill": False, "edgecolor": LIGHT["reduced"], "linewidth": 0.9}
            axes.add_patch(Rectangle((start, start), end - start, end - start, **outline))
    middles, ends = [(start + end) / 2 for start, end in places], max(len(clusters), 1)
    axes.set_xticks(middles, names, rotation=90 if len(names) > 2 else 0, fontsize=7)
    axes.set_yticks(middles, names, fontsize=7)
    axes.tick_params(axis="x", length=0, labelcolor=LIGHT["ink"])
    axes.set(xlim=(0, ends), ylim=(ends, 0), aspect="equal")
    axes.set_title("PCA, by modality" if by == "modality" else "translated, by instrument")
    return figure


def _blocks(
    clusters: Sequence[tuple[str, str]], by: Literal["modality", "instrument"]
) -> tuple[list[tuple[int, int]], list[str]]:
    """What the axes name: rows from and to, and the name. Sorted by instrument each class; sorted
    by modality each row, or each modality where the rows are too many for letters."""
    if by == "modality" and len(clusters) <= _NAMED:
        rows = [(row, row + 1) for row in range(len(clusters))]
        return rows, [f"{name} {_MARKS[modality]}" for modality, name in clusters]
    keys = [THINGS[modality] if by == "modality" else name for modality, name in clusters]
    names = list(dict.fromkeys(keys))
    starts = [keys.index(name) for name in names]
    return list(zip(starts, [*starts[1:], len(keys)], strict=True)), names


@styled
def labels_figure(counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Figure:
    """Clips of each class that trained the translation, a bar a modality (paper, Fig. 6)."""
    total = np.sum([list(of_one) for of_one in counts.values()], axis=0)
    order = np.argsort(-np.atleast_1d(total), kind="stable")
    figure = panels(1, 0.9 + 0.26 * len(classes))
    axes = figure.add_subplot()
    height = 0.8 / max(len(counts), 1)
    colours = {"audio": "translated", "image": "single"}
    handles = []
    for number, (modality, of_one) in enumerate(counts.items()):
        places = np.arange(len(classes)) - 0.4 + height * (number + 0.5)
        handles.append(
            axes.barh(
                places,
                np.asarray(of_one)[order],
                height=height * 0.9,
                color=LIGHT[colours.get(modality, "reduced")],
                label={"audio": "sounds", "image": "pictures"}.get(modality, modality),
            )
        )
    axes.set_yticks(range(len(classes)), np.asarray(classes)[order])
    axes.set_ylim(max(len(classes), 1) - 0.4, -0.6)
    axes.set_xlabel("clips that trained the translation")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="x")
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
