"""Probabilities of the classes over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from anymodal.classifier.prediction import Prediction
from anymodal.report.drawing import styled
from anymodal.report.palette import LIGHT

_SHOWN = 6
"""Classes per panel: the most probable ones."""


@styled
def timeline_figure(predictions: Sequence[Prediction]) -> Figure:
    """Draw one panel per item: its most probable classes over time, shaded by probability.

    Unknown windows are hatched. An image is a single window.
    """
    figure = Figure((7.0, max(1.0, 1.75 * len(predictions))), layout="constrained")
    shades = LinearSegmentedColormap.from_list("shades", [LIGHT["paper"], LIGHT["translated"]])
    for place, prediction in enumerate(predictions):
        axes = figure.add_subplot(len(predictions), 1, place + 1)
        windows = prediction.windows
        table = np.stack([window.probabilities for window in windows])
        shown = np.argsort(-table.max(axis=0), kind="stable")[:_SHOWN]
        for window in windows:
            width = window.seconds or 1.0
            for row, column in enumerate(shown):
                probability = float(window.probabilities[column])
                axes.barh(row, width, left=window.start_s, height=0.9, color=shades(probability))
                if len(windows) <= 16 and probability >= 0.1:
                    axes.text(
                        window.start_s + width / 2,
                        row,
                        f"{probability:.2f}".lstrip("0"),
                        ha="center",
                        va="center",
                        fontsize=6,
                        color=LIGHT["paper"] if probability > 0.55 else LIGHT["ink"],
                    )
            if not window.known:
                axes.barh(
                    (len(shown) - 1) / 2,
                    width,
                    left=window.start_s,
                    height=len(shown),
                    color="none",
                    hatch="////",
                    edgecolor=LIGHT["muted"],
                    linewidth=0,
                )
        axes.set_yticks(range(len(shown)), [prediction.classes[column] for column in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        end = windows[-1].start_s + windows[-1].seconds
        axes.set_xlim(0, max(1.0, end))
        if end > 0:
            axes.set_xlabel("seconds")
        else:
            axes.set_xticks([])
        used = "audio and image" if prediction.modality == "both" else prediction.modality
        axes.set_title(f"{PurePath(prediction.item).name}: {prediction.answer} (from {used})")
    return figure
