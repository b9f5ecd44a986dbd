import re
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from anymodal.report import figures, names
from anymodal.report.evidence import read_evidence
from anymodal.report.page import report_figures
from anymodal.report.palette import LIGHT
from anymodal.report.svg import inline_svg


@pytest.fixture(scope="module")
def evidence(typical):
    return read_evidence(typical)


@pytest.fixture(scope="module")
def retrieved(evidence):
    return [score.model_dump() for score in evidence.retrieval]


def bars(axes):
    """Length of each bar by its tick label."""
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    return dict(zip(labels, (patch.get_width() for patch in axes.patches), strict=True))


def test_score_bars_end_at_the_means(evidence):
    figure = figures.scores_figure(evidence.summary, evidence.outcomes)
    assert len(figure.axes) == 2
    summary = evidence.summary.set_index(["system", "regime", "target"])["mean"]
    for target, axes in zip(("audio", "image"), figure.axes, strict=True):
        drawn = bars(axes)
        assert len(drawn) == 5
        for label, length in drawn.items():
            system, regime = label.split(", ")
            regime = "all" if regime == "all data" else regime
            assert length == pytest.approx(summary[system, regime, target])


def test_score_dots_are_the_seeds(evidence):
    axes = figures.scores_figure(evidence.summary, evidence.outcomes, ["image"]).axes[0]
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    expected = evidence.outcomes.query("target == 'image'")["macro_f1"]
    assert sorted(np.concatenate(dots)) == pytest.approx(sorted(expected))


def test_scores_of_an_empty_summary():
    figure = figures.scores_figure(pd.DataFrame(columns=["system", "regime", "target"]))
    assert [len(axes.patches) for axes in figure.axes] == [0, 0]
    inline_svg(figure, "empty", "nothing")


def test_retrieval_shows_means_and_baselines_on_one_axis(retrieved):
    figure = figures.retrieval_figure(retrieved, retrieved[0]["pair"])
    low, high = figures.retrieval_limits(retrieved)
    for way, axes in zip(names.WAYS, figure.axes, strict=True):
        assert axes.get_xlim() == (low, high)
        dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        means = [np.mean([entry[way] for entry in score["translation"]]) for score in retrieved]
        assert dots == pytest.approx(sorted(means, reverse=True), abs=0.02)
        assert sorted(dots) == pytest.approx(sorted(means))
        bold = [t.get_text() for t in axes.get_yticklabels() if t.get_fontweight() == "bold"]
        assert [text.replace(" +\n", "+") for text in bold] == [retrieved[0]["pair"]]
    assert len(figure.legends) == 1


def test_retrieval_limits_hold_all_scores_within_0_and_1(retrieved):
    low, high = figures.retrieval_limits(retrieved)
    assert 0.5 < low < 0.61
    assert 0.93 < high <= 1.0
    ways = dict.fromkeys(names.WAYS, 0.02)
    flat = {"pair": "a+b", "top_k": 3, "translation": [ways], "pca": ways, "random": ways}
    assert figures.retrieval_limits([flat])[0] == 0.0
    top = dict.fromkeys(names.WAYS, 1.0)
    perfect = {**flat, "translation": [top], "pca": top, "random": top}
    assert figures.retrieval_limits([perfect])[1] == 1.0
    assert figures.retrieval_limits([]) == (0.0, 1.0)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_retrieval_of_no_one_and_many_pairs(retrieved, count):
    scores = [{**retrieved[0], "pair": f"audio_{n}+image_{n}"} for n in range(count)]
    figure = figures.retrieval_figure(scores, "audio_0+image_0", ["audio_to_image"])
    assert "var(--" in inline_svg(figure, "r", "r")


def test_confusion_numbers_are_the_counts(evidence):
    figure = figures.confusion_figure(
        evidence.predictions, evidence.results.classes, "MMT", "zero-shot", "image"
    )
    rows = evidence.predictions.query(
        "system == 'MMT' and regime == 'zero-shot' and target == 'image'"
    )
    numbers = [int(text.get_text()) for text in figure.axes[0].texts]
    assert sum(numbers) == len(rows)
    shades = [patch.get_alpha() for patch in figure.axes[0].patches]
    assert len(shades) == len(numbers)
    assert max(shades) <= 1.0


def test_confusion_of_no_answers(evidence):
    figure = figures.confusion_figure(evidence.predictions, ["a", "b"], "MMT", "zero-shot", "smell")
    assert not figure.axes[0].texts
    inline_svg(figures.class_f1_figure(evidence.predictions, ["a"], "smell"), "c", "c")


def test_training_marks_the_lowest_finite_loss():
    losses = pd.DataFrame(
        {
            "seed": [0, 0, 0, 1, 1],
            "epoch": [1, 2, 3, 1, 2],
            "valid_loss": [0.5, 0.2, None, np.nan, np.inf],
        }
    )
    axes = figures.training_figure(losses).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(2, 0.2)]
    empty = pd.DataFrame(columns=["seed", "epoch", "valid_loss"])
    inline_svg(figures.training_figure(empty), "t", "t")


def test_drawing_leaves_matplotlib_as_it_was(evidence):
    before = dict(matplotlib.rcParams)
    figures.scores_figure(evidence.summary)
    assert dict(matplotlib.rcParams) == before


def test_svgs_follow_the_theme_and_share_no_ids(evidence):
    seen: set[str] = set()
    for name, figure in report_figures(evidence).items():
        svg = inline_svg(figure, name, f"figure {name}")
        root = ET.fromstring(svg)
        assert root.attrib["aria-label"] == f"figure {name}"
        assert not re.findall(r"#[0-9a-f]{6}", svg), name
        assert "var(--ink)" in svg
        ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        assert not ids & seen
        seen |= ids
        for reference in re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg):
            assert reference in ids
        assert not root.findall(".//style")
        assert not root.findall(".//metadata")


def test_text_in_svg_is_text_and_escaped(evidence):
    predictions = evidence.predictions.replace({"banjo": "<b>$\\alpha$ & co"})
    figure = figures.class_f1_figure(predictions, ["<b>$\\alpha$ & co"], "audio")
    svg = inline_svg(figure, "x", '"quoted" & <marked>')
    texts = [element.text for element in ET.fromstring(svg).iter("text")]
    assert "<b>$\\alpha$ & co" in texts
    assert ET.fromstring(svg).attrib["aria-label"] == '"quoted" & <marked>'


def test_figures_are_the_same_each_time(evidence):
    first, second = (
        inline_svg(figures.scores_figure(evidence.summary, evidence.outcomes), "s", "s")
        for _ in range(2)
    )
    assert first == second


def test_png_for_a_tracker_has_an_opaque_background(evidence, tmp_path):
    path = tmp_path / "scores.png"
    figures.scores_figure(evidence.summary).savefig(path)
    corner = matplotlib.image.imread(path)[0, 0]
    paper = [int(LIGHT["paper"][place : place + 2], 16) / 255 for place in (1, 3, 5)]
    assert corner.tolist() == pytest.approx([*paper, 1.0], abs=0.01)
