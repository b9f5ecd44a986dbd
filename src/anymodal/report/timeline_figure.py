"""What a classifier hears and sees, moment by moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from anymodal.prediction import Prediction
from anymodal.report.drawing import styled
from anymodal.report.palette import LIGHT

_SHOWN = 6
"""Classes that a file's panel has room for: the most probable ones."""
_WORDS = {"audio": "sound", "image": "picture", "both": "sound and picture"}


@styled
def timeline_figure(answers: Sequence[Prediction]) -> Figure:
    """Probabilities over time, one panel an item.

    A row is a class, of which the six most probable are drawn; the shade is its probability. A
    moment that is called unknown is hatched. A still picture is one moment.
    """
    figure = Figure((7.0, max(1.0, 1.75 * len(answers))), layout="constrained")
    shades = LinearSegmentedColormap.from_list("shades", [LIGHT["paper"], LIGHT["translated"]])
    for place, answer in enumerate(answers):
        axes = figure.add_subplot(max(1, len(answers)), 1, place + 1)
        table = np.stack([one.probabilities for one in answer.moments])
        order = np.argsort(-table.max(axis=0), kind="stable")[:_SHOWN]
        for one in answer.moments:
            width = one.seconds or 1.0
            for row, code in enumerate(order):
                share = float(one.probabilities[code])
                axes.barh(row, width, left=one.start_s, height=0.9, color=shades(share))
                if len(answer.moments) <= 16 and share >= 0.1:
                    axes.text(
                        one.start_s + width / 2,
                        row,
                        f"{share:.2f}".lstrip("0"),
                        ha="center",
                        va="center",
                        fontsize=6,
                        color=LIGHT["paper"] if share > 0.55 else LIGHT["ink"],
                    )
            if not one.known:
                axes.barh(
                    (len(order) - 1) / 2,
                    width,
                    left=one.start_s,
                    height=len(order),
                    color="none",
                    hatch="////",
                    edgecolor=LIGHT["muted"],
                    linewidth=0,
                )
        axes.set_yticks(range(len(order)), [answer.classes[code] for code in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        last = answer.moments[-1]
        axes.set_xlim(0, max(1.0, last.start_s + last.seconds))
        if last.start_s + last.seconds > 0:
            axes.set_xlabel("seconds")
        else:
            axes.set_xticks([])
        axes.set_title(
            f"{PurePath(answer.item).name}: {answer.answer} (from {_WORDS[answer.modality]})"
        )
    return figure
