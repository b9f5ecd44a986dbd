"""The reliability diagram: how often an answer is right, by how sure the classifier was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from anymodal.encoders.base import MODALITIES
from anymodal.report.drawing import panels, styled
from anymodal.report.names import THINGS
from anymodal.report.palette import LIGHT

_MOST_AREA = 90.0


@styled
def reliability_figure(told: Mapping[str, Any], modalities: Sequence[str] = MODALITIES) -> Figure:
    """Accuracy by confidence, calibrated and of the votes, one panel a modality.

    `told` is `judge.json`. A dot's area grows with its rows; on the diagonal a probability means
    what it says.
    """
    figure = panels(len(modalities), 2.6)
    for place, modality in enumerate(modalities):
        axes = figure.add_subplot(1, len(modalities), place + 1)
        axes.set_title(f"tested on {THINGS.get(modality, modality)}")
        axes.plot([0, 1], [0, 1], color=LIGHT["rule"], linewidth=0.8, zorder=0)
        found = told["modalities"][modality]
        rows = max(1, found["test_rows"])
        for name, label, colour, filled in (
            ("reliability_of_votes", "votes as they are", LIGHT["muted"], False),
            ("reliability", "calibrated", LIGHT["ink"], True),
        ):
            points = found[name]
            axes.plot(
                [one["confidence"] for one in points],
                [one["accuracy"] for one in points],
                color=colour,
                linewidth=0.9,
                linestyle="-" if filled else ":",
            )
            axes.scatter(
                [one["confidence"] for one in points],
                [one["accuracy"] for one in points],
                s=[max(6.0, _MOST_AREA * one["rows"] / rows) for one in points],
                color=colour if filled else "none",
                edgecolors=colour,
                linewidths=0.8,
                label=label,
            )
        axes.set_xlim(0, 1.06)
        axes.set_ylim(0, 1.06)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share answered rightly")
        axes.legend(loc="lower right", markerscale=0.7)
    return figure
