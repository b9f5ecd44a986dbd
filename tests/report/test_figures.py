"""Figures draw the numbers of the results; as SVG they follow the page's theme."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from anymodal.core.modality import MODALITIES
from anymodal.evaluation.captions import DIRECTIONS
from anymodal.evaluation.retrieval import Directions
from anymodal.projection.trainings import Epoch
from anymodal.report import figures
from anymodal.report.calibration_figures import reliability_figure
from anymodal.report.cross_source_figure import cross_source_figure
from anymodal.report.palette import LIGHT
from anymodal.report.structure_figures import labels_figure, structure_figure
from anymodal.report.svg import inline_svg
from helpers.results import LEVELS, space


def marks(axes, marker="o"):
    """Ends of the lines that are drawn as single marks."""
    return [line.get_xydata() for line in axes.lines if line.get_marker() == marker]


def names(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_score_bars_end_at_the_means_and_dots_are_the_seeds(typical):
    result = typical.classification
    for target, axes in zip(MODALITIES, figures.scores_figure(result).axes, strict=True):
        bars = dict(zip(names(axes), (patch.get_width() for patch in axes.patches), strict=True))
        assert bars == {
            f"{s.system}, {'all data' if s.regime == 'all' else s.regime}": s.mean
            for s in result.summary
            if s.target == target
        }
        dots = np.concatenate(marks(axes))[:, 0]
        seeds = [outcome.macro_f1 for outcome in result.outcomes if outcome.target == target]
        assert sorted(dots) == pytest.approx(sorted(seeds))
    empty = result.model_copy(update={"summary": (), "outcomes": ()})
    assert not figures.scores_figure(empty, ["audio"]).axes[0].patches


def test_retrieval_shows_means_and_baselines_on_one_axis(typical):
    figure = figures.retrieval_figure(typical.retrieval, typical.selection.pair)
    limits = figures.retrieval_limits(typical.retrieval)
    for direction, axes in zip(DIRECTIONS, figure.axes, strict=True):
        assert axes.get_xlim() == limits
        ranked = [getattr(pair, direction) for pair in typical.selection.ranking]
        assert [dot[0, 0] for dot in marks(axes)] == pytest.approx(ranked)
        for marker, baseline in (("D", "pca"), ("s", "random")):
            expected = getattr(getattr(typical.retrieval[0], baseline), direction)
            assert {dot[0, 0] for dot in marks(axes, marker)} == {expected}
        bold = [t.get_text() for t in axes.get_yticklabels() if t.get_fontweight() == "bold"]
        assert [text.replace(" +\n", "+") for text in bold] == [typical.selection.pair]
    assert len(figure.legends) == 1


@pytest.mark.parametrize(("value", "end", "place"), [(0.02, 0.0, 0), (1.0, 1.0, 1)])
def test_the_axis_of_retrieval_stays_within_0_and_1(typical, value, end, place):
    flat = Directions(audio_to_image=value, image_to_audio=value)
    update = {"pca": flat, "random": flat, "translation": (flat,)}
    result = typical.retrieval[0].model_copy(update=update)
    assert figures.retrieval_limits([result])[place] == end
    low, high = figures.retrieval_limits(typical.retrieval)
    assert 0.5 < low < 0.61 < 0.93 < high < 1


def test_confusion_numbers_are_the_counts(typical):
    predictions, classes = typical.predictions, typical.classification.classes
    axes = figures.confusion_figure(predictions, classes, "MMT", "zero-shot", "image").axes[0]
    rows = predictions.query("system == 'MMT' and regime == 'zero-shot' and target == 'image'")
    counts = pd.crosstab(rows["truth"], rows["predicted"])
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        assert int(text.get_text()) == counts.loc[classes[row], classes[column]]
    assert sum(int(text.get_text()) for text in axes.texts) == len(rows)
    assert len(axes.patches) == len(axes.texts)


def test_class_f1_is_that_of_evaluation(typical):
    predictions, classes = typical.predictions, typical.classification.classes
    axes = figures.class_f1_figure(predictions, classes, "audio").axes[0]
    for system, regime, drawn in (
        ("MMT", "zero-shot", [bar.get_width() for bar in axes.patches]),
        ("SMA", "all", marks(axes, "D")[0][:, 0]),
        ("MMT", "all", marks(axes)[0][:, 0]),
    ):
        scores = figures.scores_by_class(predictions, classes, system, regime, "audio")
        assert drawn == pytest.approx(scores.mean)
        overall = typical.classification.scores[system, regime, "audio"].mean
        assert scores.mean.mean() == pytest.approx(overall)


def test_no_answers_leave_an_empty_frame():
    none = pd.DataFrame(columns=["system", "regime", "target", "seed", "truth", "predicted"])
    assert not figures.confusion_figure(none, ["a", "b"], "MMT", "all", "audio").axes[0].texts
    inline_svg(figures.class_f1_figure(none, ["a"], "audio"), "c", "c")


def test_boxes_hold_the_draws_and_stand_at_their_points(typical):
    single = typical.classification.scores["SMA", "all", "audio"]
    axes = figures.mixing_figure(typical.curve, "audio", single).axes[0]
    points = sorted(typical.curve["samples"].unique())
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [f"{p:,}" for p in points]
    draws = typical.curve.query("target == 'audio'").groupby(["system", "samples"])["macro_f1"]
    for box, (system, place) in zip(
        axes.patches, [(s, p) for s in ("MMT", "MMP") for p in range(len(points))], strict=True
    ):
        ends = box.get_path().get_extents()
        scores = draws.get_group((system, points[place]))
        assert (ends.y0, ends.y1) == pytest.approx(tuple(scores.quantile([0.25, 0.75])))
        assert round((ends.x0 + ends.x1) / 2) == place
    dashed = [line for line in axes.lines if line.get_label() == "SMA, all its rows"]
    assert dashed[0].get_ydata()[0] == single.mean


def test_training_marks_the_epoch_that_was_kept(typical):
    axes = figures.training_figure(typical.trainings).axes[0]
    kept = [(t.best_epoch, t.valid_loss) for t in typical.trainings.seeds]
    assert [tuple(dot[0]) for dot in marks(axes)] == kept
    diverged = typical.trainings.seeds[0].model_copy(
        update={"history": (Epoch(epoch=1, train_loss=None, valid_loss=None, seconds=1.0),)}
    )
    lost = typical.trainings.model_copy(update={"seeds": (diverged,)})
    inline_svg(figures.training_figure(lost), "t", "t")


def test_dots_of_the_cross_source_figure_are_the_scores(typical):
    axes = cross_source_figure(typical.cross_source.targets["audio"]).axes[0]
    assert names(axes)[0] == "MMT, zero-shot" and len(names(axes)) == len(LEVELS)
    dots = [dot[0] for dot in (*marks(axes), *marks(axes, "D")) if len(dot)]
    assert sorted(x for x, place in dots if place == 0) == sorted(LEVELS["MMT", "zero-shot"])
    assert axes.texts[0].get_text() == "0.300"


def test_the_reliability_diagram(typical):
    for modality, axes in zip(
        MODALITIES, reliability_figure(typical.calibration).axes, strict=True
    ):
        measured = typical.calibration.modalities[modality]
        for drawn, points in zip(
            axes.collections, (measured.reliability_of_votes, measured.reliability), strict=True
        ):
            expected = [(point.confidence, point.accuracy) for point in points]
            assert drawn.get_offsets().tolist() == pytest.approx(np.array(expected))


@pytest.mark.parametrize("by", ["modality", "instrument"])
@pytest.mark.parametrize("classes", [1, 3, 18])
def test_a_matrix_is_dark_where_centroids_are_near(by, classes):
    measured = space([f"class {n}" for n in range(classes)], 2.0, np.random.default_rng(0))
    axes = structure_figure(measured, by).axes[0]
    cells = {
        (patch.get_x(), patch.get_y()): patch.get_alpha()
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_fill()
        and to_hex(patch.get_facecolor()) == LIGHT["heat"]
    }  # fmt: skip
    order = measured.order(by)
    distances = measured.matrix[np.ix_(order, order)]
    for row, column in np.ndindex(*distances.shape):
        expected = 1 - distances[row, column] / distances.max()
        assert cells.get((column, row), 0.0) == pytest.approx(expected, abs=0.005)
    if by == "instrument":
        assert names(axes) == list(measured.classes)
        outlines = [(p.get_x(), p.get_width()) for p in axes.patches if not p.get_fill()]
        assert outlines == [(2 * place, 2) for place in range(classes)]
    elif classes <= 12:
        assert names(axes) == [f"{name} {letter}" for letter in "ai" for name in measured.classes]
    else:
        assert names(axes) == ["audio", "images"]


def test_label_bars_are_the_counts_most_first():
    axes = labels_figure({"audio": [5, 20], "image": [1, 2]}, ["flute", "guitar"]).axes[0]
    assert names(axes) == ["guitar", "flute"]
    assert [bar.get_width() for bar in axes.patches] == [20, 5, 2, 1]


def test_svgs_of_the_page_follow_the_theme_and_share_no_ids(typical_page):
    seen: set[str] = set()
    for svg in re.findall("<svg.*?</svg>", typical_page, flags=re.DOTALL):
        root = ET.fromstring(svg)
        assert not re.findall(r"#[0-9a-f]{6}", svg)
        assert "var(--ink)" in svg
        ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        assert not ids & seen
        seen |= ids
        assert set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg)) <= ids
        assert not root.findall(".//style") and not root.findall(".//metadata")


def test_text_in_svg_is_text_and_escaped(typical):
    name = "<b>$\\alpha$ & co"
    predictions = typical.predictions.replace({"banjo": name})
    classes = [name if each == "banjo" else each for each in typical.classification.classes]
    svg = inline_svg(figures.class_f1_figure(predictions, classes, "audio"), "x", '"a" & <b>')
    assert name in [element.text for element in ET.fromstring(svg).iter("text")]
    assert ET.fromstring(svg).attrib["aria-label"] == '"a" & <b>'
    again = figures.class_f1_figure(predictions, classes, "audio")
    assert inline_svg(again, "x", '"a" & <b>') == svg


def test_drawing_leaves_matplotlib_as_it_was_and_png_has_a_background(typical, tmp_path):
    before = dict(matplotlib.rcParams)
    figures.scores_figure(typical.classification).savefig(tmp_path / "scores.png")
    assert dict(matplotlib.rcParams) == before
    corner = matplotlib.image.imread(tmp_path / "scores.png")[0, 0]
    paper = [int(LIGHT["paper"][place : place + 2], 16) / 255 for place in (1, 3, 5)]
    assert corner.tolist() == pytest.approx([*paper, 1.0], abs=0.01)
