"""Figures of the joint space and of what trained it: the paper's Figs. 4 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from anymodal.core.modality import Modality
from anymodal.evaluation.captions import MODALITY_NAMES
from anymodal.evaluation.structure import SpaceStructure
from anymodal.report.drawing import PANEL, panels, styled
from anymodal.report.palette import LIGHT

_NAMED = 24
"""Most rows of a matrix whose names can be read on a phone."""


@styled
def structure_figure(space: SpaceStructure, by: Literal["modality", "instrument"]) -> Figure:
    """Distances between the centroids of every class in both modalities (paper, Fig. 4).

    Darkest at distance 0, blank at the space's largest distance. Sorted by modality, or by
    instrument, where the square of each class on the diagonal is outlined.
    """
    order = space.order(by)
    distances = space.matrix[np.ix_(order, order)]
    clusters = [space.clusters[row] for row in order]
    largest = float(distances.max(initial=0.0))
    side = PANEL if len(clusters) <= _NAMED else PANEL * 1.35
    figure = panels(1, side + 0.25, side)
    axes = figure.add_subplot()
    for row, column in np.ndindex(*distances.shape):
        near = 1.0 - distances[row, column] / largest if largest else 1.0
        if near > 0.004:
            # add_patch would update the limits with every cell, which takes most of the time
            axes.add_artist(
                Rectangle((column, row), 1, 1, facecolor=LIGHT["heat"], alpha=near, linewidth=0)
            )
    blocks = _blocks(clusters, by)
    if by == "instrument":
        for start, end, _ in blocks:
            outline: Any = {"fill": False, "edgecolor": LIGHT["reduced"], "linewidth": 0.9}
            axes.add_patch(Rectangle((start, start), end - start, end - start, **outline))
    middles, names = [(start + end) / 2 for start, end, _ in blocks], [b[2] for b in blocks]
    axes.set_xticks(middles, names, rotation=90 if len(names) > 2 else 0, fontsize=7)
    axes.set_yticks(middles, names, fontsize=7)
    axes.tick_params(axis="x", length=0, labelcolor=LIGHT["ink"])
    end = max(len(clusters), 1)
    axes.set(xlim=(0, end), ylim=(end, 0), aspect="equal")
    axes.set_title("PCA, by modality" if by == "modality" else "translated, by instrument")
    return figure


def _blocks(
    clusters: Sequence[tuple[Modality, str]], by: Literal["modality", "instrument"]
) -> list[tuple[int, int, str]]:
    """First row, end and name of what the axes name: classes where sorted by instrument; rows where
    sorted by modality, or modalities where the rows are too many."""
    if by == "modality" and len(clusters) <= _NAMED:
        names = [f"{name} {modality[0]}" for modality, name in clusters]
        return [(row, row + 1, name) for row, name in enumerate(names)]
    keys = [MODALITY_NAMES[m] if by == "modality" else name for m, name in clusters]
    return [
        (keys.index(key), keys.index(key) + keys.count(key), key) for key in dict.fromkeys(keys)
    ]


@styled
def labels_figure(counts: Mapping[Modality, Sequence[int]], classes: Sequence[str]) -> Figure:
    """Clips of each class that trained the translation, one bar per modality (paper, Fig. 6)."""
    order = np.argsort(-np.sum(list(counts.values()), axis=0), kind="stable")
    figure = panels(1, 0.9 + 0.26 * len(classes))
    axes = figure.add_subplot()
    height = 0.8 / len(counts)
    for number, (modality, clips) in enumerate(counts.items()):
        axes.barh(
            np.arange(len(classes)) - 0.4 + height * (number + 0.5),
            np.asarray(clips)[order],
            height=height * 0.9,
            color=LIGHT["translated" if modality == "audio" else "single"],
            label=MODALITY_NAMES[modality],
        )
    axes.set_yticks(range(len(classes)), np.asarray(classes)[order])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlabel("clips that trained the translation")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
