"""Timelines: what is drawn of predictions over time."""

import numpy as np

from anymodal.classifier.prediction import Prediction, WindowPrediction
from anymodal.report.timeline_figure import timeline_figure


def prediction(item, modality, tables, seconds, known=None, classes=("banjo", "flute", "piano")):
    windows = tuple(
        WindowPrediction(float(n), length, modality, np.array(row), known is None or known[n])
        for n, (row, length) in enumerate(zip(tables, seconds, strict=True))
    )
    return Prediction(item, modality, classes, np.mean(tables, axis=0), True, {}, windows)


def test_one_panel_per_item(tmp_path):
    tables = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]
    video = prediction("a.mp4", "both", tables, (1.0, 0.75, 0.5), (True, False, True))
    image = prediction("b/c.jpg", "image", [[0.2, 0.6, 0.2]], (0.0,))
    figure = timeline_figure([video, image])
    first, second = figure.axes
    assert first.get_title(loc="left").startswith("a.mp4: piano")
    assert second.get_title(loc="left").startswith("c.jpg: flute")
    # the most probable class at any time is on top, and time runs to the end of the last window
    assert [label.get_text() for label in first.get_yticklabels()] == ["piano", "flute", "banjo"]
    assert first.get_xlim() == (0, 2.5)
    assert sum(bool(patch.get_hatch()) for patch in first.patches) == 1
    for suffix in ("png", "svg"):
        figure.savefig(tmp_path / f"t.{suffix}")
        assert (tmp_path / f"t.{suffix}").stat().st_size > 1000


def test_the_most_probable_of_many_classes():
    names = tuple(f"c{n}" for n in range(20))
    figure = timeline_figure(
        [prediction("x", "audio", [np.arange(1.0, 21) / 210], (1.0,), None, names)]
    )
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["c19", "c18", "c17", "c16", "c15", "c14"]


def test_no_predictions_draw_nothing():
    assert timeline_figure([]).axes == []
