"""The reliability diagram: accuracy by confidence."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from anymodal.classifier.assessment import CalibrationResult
from anymodal.core.modality import MODALITIES, Modality
from anymodal.evaluation.captions import MODALITY_NAMES
from anymodal.report.drawing import panels, styled
from anymodal.report.palette import LIGHT

_LARGEST = 90.0
"""Area of a dot that stands for all rows."""


@styled
def reliability_figure(
    calibration: CalibrationResult, modalities: Sequence[Modality] = MODALITIES
) -> Figure:
    """Accuracy by confidence, of calibrated probabilities and of votes; a dot's area grows with its
    rows."""
    figure = panels(len(modalities), 2.6)
    for place, modality in enumerate(modalities):
        axes = figure.add_subplot(1, len(modalities), place + 1)
        axes.set_title(f"tested on {MODALITY_NAMES[modality]}")
        axes.plot([0, 1], [0, 1], color=LIGHT["rule"], linewidth=0.8, zorder=0)
        measured = calibration.modalities[modality]
        for points, label, colour, face, line in (
            (measured.reliability_of_votes, "votes", LIGHT["muted"], "none", ":"),
            (measured.reliability, "calibrated", LIGHT["ink"], LIGHT["ink"], "-"),
        ):
            confidence = [point.confidence for point in points]
            accuracy = [point.accuracy for point in points]
            areas = [max(6.0, _LARGEST * point.rows / measured.test_rows) for point in points]
            axes.plot(confidence, accuracy, color=colour, linewidth=0.9, linestyle=line)
            axes.scatter(
                confidence, accuracy, s=areas, color=face, edgecolors=colour, linewidths=0.8,
                label=label,
            )  # fmt: skip
        axes.set_xlim(0, 1.06)
        axes.set_ylim(0, 1.06)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.legend(loc="lower right", markerscale=0.7)
    return figure
