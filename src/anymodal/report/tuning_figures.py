"""Figures of a search for parameters: how it went, what mattered, and where the good ones lie."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from anymodal.report.drawing import PANEL, panels, styled
from anymodal.report.palette import LIGHT


@styled
def history_figure(trials: pd.DataFrame, score: str) -> Figure:
    """Every trial's score and the best so far.

    `trials` has the columns trial, state (`complete`, `pruned`, ...) and score; pruned trials have
    no score and stand as ticks on the lower edge.
    """
    figure = panels(1, 2.2, 1.5 * PANEL)
    axes = figure.add_subplot()
    done = trials[trials["state"] == "complete"].sort_values("trial")
    pruned = trials[trials["state"] == "pruned"]
    axes.set_xlabel("trial")
    axes.set_ylabel(score)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.plot(done["trial"], done["score"], "o", ms=3, color=LIGHT["single"], label="completed")
    best = done.set_index("trial")["score"].cummax()
    if len(best):
        best.loc[max(best.index[-1], trials["trial"].max())] = best.iloc[-1]
    axes.step(best.index, best, where="post", color=LIGHT["translated"], label="best so far")
    if len(pruned):
        axes.plot(
            pruned["trial"], np.full(len(pruned), 0.02), "|", ms=6, color=LIGHT["reduced"],
            transform=axes.get_xaxis_transform(), label="pruned",
        )  # fmt: skip
    axes.legend(loc="lower right")
    return figure


@styled
def importance_figure(importances: Mapping[str, float]) -> Figure:
    """Share of the scores' spread that each parameter explains, the largest on top."""
    names = sorted(importances, key=lambda name: importances[name])
    figure = panels(1, 0.6 + 0.22 * max(1, len(names)))
    axes = figure.add_subplot()
    axes.barh(names, [importances[name] for name in names], color=LIGHT["translated"], height=0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the spread (fANOVA)")
    if not names:
        axes.text(0.5, 0.5, "too few trials to tell", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
    return figure


@styled
def parallel_figure(
    places: pd.DataFrame, scores: pd.Series, ends: Mapping[str, tuple[str, str]]
) -> Figure:
    """Every completed trial as a line through the parameters' axes, the best tenth in colour.

    `places` holds 0 to 1 a trial and parameter (NaN interrupts the line), `scores` the trials'
    scores by the same index, `ends` what stands at 0 and 1 of each axis.
    """
    names = [str(name) for name in places]
    figure = panels(1, 2.6, max(PANEL, 0.7 * len(names)))
    axes = figure.add_subplot()
    order = scores.sort_values().index
    best = set(order[len(order) - max(1, len(order) // 10) :])
    for trial in order:
        colour, weight = ("translated", 1.4) if trial in best else ("rule", 0.7)
        axes.plot(
            range(len(names)), places.loc[trial], color=LIGHT[colour], lw=weight, marker="o", ms=2
        )
    for place, name in enumerate(names):
        axes.axvline(place, color=LIGHT["muted"], lw=0.5)
        for height, text in zip((-0.04, 1.04), ends[name], strict=True):
            axes.text(
                place, height, text, ha="center", va="top" if height < 0 else "bottom", size=6
            )
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.tick_params(axis="x", pad=12)
    axes.set_yticks([])
    axes.set_ylim(-0.02, 1.02)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure
