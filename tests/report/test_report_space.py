"""Figures and readings of the mixing curve, the joint space and the labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from anymodal.report.names import THINGS
from anymodal.report.palette import LIGHT
from anymodal.report.records import Comparison, CorrelationRow, Share, Spaces, SummaryRow
from anymodal.report.space_figures import labels_figure, mixing_figure, structure_figure
from anymodal.report.space_readings import (
    comparison_words,
    labels_reading,
    mixing_reading,
    share_reading,
    structure_reading,
)
from anymodal.structure import structure


def curve(mmt, mmp, samples=(0, 10, 30)):
    """Two draws a point, around the scores given for each point."""
    return pd.DataFrame(
        [
            (system, "audio", count, draw, score + (0.01 if draw else -0.01))
            for system, scores in (("MMT", mmt), ("MMP", mmp))
            for count, score in zip(samples, scores, strict=True)
            for draw in (0, 1)
        ],
        columns=["system", "target", "samples", "draw", "macro_f1"],
    )


def summary(mean):
    row = SummaryRow(
        system="SMA", regime="all", target="audio", mean=mean, min=mean, max=mean, seeds=1,
        train_rows=30, test_rows=10, classes=5, chance=0.2,
    )  # fmt: skip
    return {("SMA", "all", "audio"): row}


def spaces(classes=3, apart=0.0):
    names = [f"class {number}" for number in range(classes)]
    random = np.random.default_rng(0)
    centres = 3 * random.standard_normal((classes, 5))
    rows = {
        m: centres + apart * place + 0.01 * random.standard_normal((classes, 5))
        for place, m in enumerate(("audio", "image"))
    }
    return structure(rows, dict.fromkeys(rows, names), names)


def test_boxes_hold_the_draws_and_stand_at_their_points():
    figure = mixing_figure(curve([0.8, 0.81, 0.82], [0.1, 0.4, 0.7]), "audio", ("SMA", [0.5, 0.6]))
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "10", "30"]
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    assert [round((box.y0 + box.y1) / 2, 6) for box in boxes] == [0.8, 0.81, 0.82, 0.1, 0.4, 0.7]
    assert [round((box.x0 + box.x1) / 2) for box in boxes] == [0, 1, 2, 0, 1, 2]
    dashed = [line for line in axes.lines if line.get_label() == "SMA, all its rows"]
    assert len(dashed) == 1 and dashed[0].get_ydata()[0] == pytest.approx(0.55)
    # no rows of this target, no single-modality system: an empty frame, no error
    assert mixing_figure(curve([1, 1, 1], [0, 0, 0]), "image").axes[0].patches[:] == []


@pytest.mark.parametrize("by", ["modality", "instrument"])
@pytest.mark.parametrize("classes", [1, 3, 18])
def test_a_matrix_is_dark_where_centres_are_near(by, classes):
    found = spaces(classes)
    axes = structure_figure(found, by).axes[0]
    cells = {
        (patch.get_x(), patch.get_y()): patch.get_alpha()
        for patch in axes.patches
        if isinstance(patch, Rectangle) and to_hex(patch.get_facecolor()) == LIGHT["heat"]
        and patch.get_fill()
    }  # fmt: skip
    order = found.order(by)
    distances = found.distances[np.ix_(order, order)]
    for row, column in np.ndindex(*distances.shape):
        expected = 1 - distances[row, column] / distances.max()
        assert cells.get((column, row), 0.0) == pytest.approx(expected, abs=0.005)
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    if by == "instrument":
        assert names == list(found.classes)
        outlines = [p for p in axes.patches if not p.get_fill()]
        assert [(p.get_x(), p.get_width()) for p in outlines] == [
            (2 * place, 2) for place in range(classes)
        ]
    elif classes <= 12:
        assert names == [f"{c} {mark}" for mark in "sp" for c in found.classes]
    else:
        assert names == [THINGS["audio"], THINGS["image"]]


def test_label_bars_are_the_counts_most_first():
    figure = labels_figure({"audio": [5, 20], "image": [1, 2]}, ["flute", "guitar"])
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["guitar", "flute"]
    assert [bar.get_width() for bar in axes.patches] == [20, 5, 2, 1]


def test_mixing_words_follow_the_numbers():
    words = mixing_reading(curve([0.8, 0.81, 0.82], [0.1, 0.4, 0.7]), summary(0.6), "audio")
    assert words == [
        "MMT rises from 0.80 with no labelled sounds to 0.82 with 30.",
        "MMP rises from 0.10 with no labelled sounds to 0.70 with 30.",
        "MMT is level with SMA (0.600) without any.",
        "MMP is level with SMA (0.600) from 30 sounds on.",
    ]
    words = mixing_reading(curve([0.5, 0.4, 0.4], [0.1, 0.1, 0.1]), summary(0.6), "audio")
    assert "MMT goes from 0.50 with no labelled sounds to 0.40 with 30." in words
    assert "MMT does not reach SMA (0.600)." in words
    assert mixing_reading(curve([1, 1, 1], [0, 0, 0]), {}, "image") == [
        "No curve was drawn for pictures."
    ]


def test_shares_and_comparisons():
    nbsp = "\N{NO-BREAK SPACE}"
    told = share_reading(Share(share=0.7, low=0.6, high=0.8, best_system="SMI"), "image")
    assert told.replace(nbsp, " ") == (
        "On pictures zero-shot reaches 70 % (95 %: 60 % to 80 %) of the best system that saw "
        "labelled pictures (SMI)."
    )
    assert "no share can be told" in share_reading(Share(share=None, best_system="SMI"), "image")
    base = {"target": "audio", "first": ("MMT", "all"), "second": ("SMA", "all"), "p_value": 0.0}
    assert comparison_words(Comparison(**base, difference=0.1, p_holm=0.01)).startswith("more")
    assert comparison_words(Comparison(**base, difference=-0.1, p_holm=0.01)).startswith("less")
    assert "not told apart" in comparison_words(Comparison(**base, difference=0.1, p_holm=0.2))


def test_structure_words():
    found = Spaces(
        dataset="d", pairing="class", pair="a+b", classes=("x",), test_rows={},
        pca=spaces(3, 20.0).to_json(), translated=({"seed": 0, **spaces(3).to_json()},),
        label_counts={},
    )  # fmt: skip
    first, second = (s.replace("\N{NO-BREAK SPACE}", " ") for s in structure_reading(found))
    assert "0.00 times after translation" in first or "0.01 times after translation" in first
    assert "100 % after translation (chance 33 %)" in second


def test_correlation_words_do_not_claim_what_chance_does():
    def row(value, p, reason=None):
        return CorrelationRow(
            target="audio", regime="all", counts_of="image", method="spearman", n=10,
            value=value, p_value=p, reason=reason,
        )  # fmt: skip

    assert "no rank correlation can be told from chance" in labels_reading([row(0.3, 0.4)], 10)[1]
    assert "the ranks bear it out" in labels_reading([row(0.8, 0.01)], 10)[1]
    assert "the ranks say the opposite" in labels_reading([row(-0.8, 0.01)], 10)[1]
    assert (
        "undefined (all 10 classes"
        in labels_reading(
            [row(None, None, "all 10 classes have the same number of clips (5)")], 10
        )[0]
    )
    assert labels_reading([], 10) == []
