"""Answers as tables, as JSON, and drawn over time."""

import json

import numpy as np
import pytest

from anymodal.prediction import MomentAnswer, Prediction, ranked, timeline
from anymodal.report.timeline_figure import timeline_figure

CLASSES = ("banjo", "flute", "piano")


def one(item="a.mp4", known=(True, False, True), modality="both"):
    tables = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])
    moments = tuple(
        MomentAnswer(float(n), 1.0 - 0.25 * n, modality, row, so)
        for n, (row, so) in enumerate(zip(tables, known, strict=False))
    )
    whole = np.array([0.25, 0.5, 0.25])
    return Prediction(item, modality, CLASSES, whole, any(known), {"audio": 0.5}, moments)


def test_the_answer_and_the_ranking():
    found = one()
    assert found.answer == "flute" and found.top(2) == [("flute", 0.5), ("banjo", 0.25)]
    assert found.top(99)[-1] == ("piano", 0.25), "ties in the order of the classes"
    assert ranked(("b", "a"), np.array([0.5, 0.5])) == [("b", 0.5), ("a", 0.5)]
    strange = one(known=(False,))
    assert strange.answer == "unknown" and strange.top(1) == [("flute", 0.5)]
    assert strange.as_row()["instrument"] == "unknown" and strange.as_row()["probability"] == 0.5
    assert list(found.as_row()) == ["instrument", "probability", "modality", *CLASSES]


def test_as_dict_is_json():
    told = one().as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["probabilities"] == {"flute": 0.5, "banjo": 0.25, "piano": 0.25}
    assert told["moments"][1] == {
        "start_s": 1.0, "seconds": 0.75, "modality": "both", "instrument": "unknown",
        "probability": 0.8,
    }  # fmt: skip
    assert (told["item"], told["instrument"], told["known"]) == ("a.mp4", "flute", True)
    assert told["novelty"] == {"audio": 0.5}


def test_a_timeline_has_a_row_a_moment():
    table = timeline([one(), one("b.jpg", (True,), "image")])
    assert table["item"].to_list() == ["a.mp4"] * 3 + ["b.jpg"]
    assert table["instrument"].to_list() == ["banjo", "unknown", "flute", "banjo"]
    assert table["start_s"].to_list() == [0, 1, 2, 0]
    assert table["probability"].to_list() == [0.5, 0.8, 0.6, 0.5]
    assert table["modality"].to_list() == ["both"] * 3 + ["image"]
    assert np.allclose(table[list(CLASSES)].sum(axis=1), 1)
    assert list(table.columns[:6]) == list(timeline([]).columns) and timeline([]).empty


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_timeline_is_drawn(tmp_path, suffix):
    still = one("b/c.jpg", (True,), "image")
    still = Prediction(still.item, "image", CLASSES, still.probabilities, True, {},
                       (MomentAnswer(0.0, 0.0, "image", still.probabilities, True),))  # fmt: skip
    figure = timeline_figure([one(), still])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "a.mp4: flute (from sound and picture)", "c.jpg: flute (from picture)",
    ]  # fmt: skip
    first = figure.axes[0]
    # the most probable class at any time is on top, and time runs to the end of the last moment
    assert [label.get_text() for label in first.get_yticklabels()] == ["piano", "flute", "banjo"]
    assert first.get_xlim() == (0, 2.5)
    assert sum(bool(patch.get_hatch()) for patch in first.patches) == 1
    figure.savefig(tmp_path / f"t.{suffix}")
    assert (tmp_path / f"t.{suffix}").stat().st_size > 1000


def test_no_answers_draw_nothing():
    assert timeline_figure([]).axes == []


def test_only_the_most_probable_of_many_classes_are_drawn():
    names = tuple(f"c{n}" for n in range(20))
    row = np.arange(1.0, 21) / 210
    moment = MomentAnswer(0.0, 1.0, "audio", row, True)
    figure = timeline_figure([Prediction("x", "audio", names, row, True, {}, (moment,))])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["c19", "c18", "c17", "c16", "c15", "c14"]
