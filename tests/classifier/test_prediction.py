"""Which windows count, what a prediction uses, when it is `unknown`, and its tables."""

import json

import numpy as np
import pytest

from anymodal.classifier.fusion import Weights
from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.classifier.prediction import (
    Prediction,
    WindowPrediction,
    WindowScores,
    combine,
    ranked,
    timeline,
)
from anymodal.media.segmentation import SegmentedItem, Window, is_blank

LOUD, SILENT = np.ones(8, np.float32), np.zeros(8, np.float32)
SEEN, PLAIN = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), np.zeros((2, 2, 3), np.uint8)
CALIBRATOR = OpenSetCalibrator(
    temperatures={"audio": 0.5, "image": 2.0}, floor=0.01, weights=Weights(audio=1.0, image=0.5)
)
CLASSES = ("banjo", "flute", "piano")


def combined(*windows, **scores):
    """The prediction for one item of two classes, `a` and `b`; `scores` are, per modality, the
    votes for `b` and the novelty of the windows that have it."""
    windows = tuple(Window(float(n), 1.0, *parts) for n, parts in enumerate(windows))
    item = SegmentedItem("it", "video", float(len(windows)), windows)
    rows = {}
    for m, (votes, novelty) in scores.items():
        numbers = [n for n, window in enumerate(windows) if window.of(m) is not None]
        blank = [is_blank(windows[n].of(m)) for n in numbers]
        columns = (numbers, [[1 - v, v] for v in votes], novelty, blank)
        rows[m] = WindowScores(*map(np.array, columns))
    return combine(item, rows, CALIBRATOR, ("a", "b"))


def test_votes_of_windows_are_averaged_and_calibrated():
    prediction = combined((LOUD,), (LOUD,), audio=([0.6, 0.8], [0.5, 0.9]))
    assert (prediction.modality, prediction.known, prediction.answer) == ("audio", True, "b")
    assert np.allclose(prediction.probabilities, np.array([0.09, 0.49]) / 0.58)
    of_windows = [window.probabilities[1] for window in prediction.windows]
    assert np.allclose(of_windows, [0.36 / 0.52, 0.64 / 0.68])
    assert [window.start_s for window in prediction.windows] == [0, 1]
    assert prediction.novelty == {"audio": pytest.approx(0.7)}


def test_novel_and_blank_windows_do_not_count():
    prediction = combined((LOUD,), (LOUD,), (SILENT,), audio=([0.9, 0.1, 0.0], [1.0, 1.01, 0.0]))
    assert np.allclose(prediction.probabilities, np.array([0.01, 0.81]) / 0.82)
    assert [window.known for window in prediction.windows] == [True, False, False]
    assert prediction.known, "half of the windows that are not blank"


@pytest.mark.parametrize(
    ("windows", "novelty", "known"),
    [
        ([LOUD] * 3, [2, 2, 0], False),
        ([LOUD] * 3, [2, 0, 0], True),
        ([LOUD] * 3, [2, 2, 2], False),
        ([LOUD, *[SILENT] * 5], [0.5] * 6, True),
        ([SILENT], [0.0], False),
    ],
)
def test_an_item_is_known_where_half_of_its_windows_that_are_not_blank_are(windows, novelty, known):
    prediction = combined(*[(w,) for w in windows], audio=([0.9] * len(windows), novelty))
    assert prediction.known is known and prediction.answer == ("b" if known else "unknown")
    assert prediction.top(1) == [("b", pytest.approx(0.81 / 0.82))]


@pytest.mark.parametrize(
    ("window", "novelty", "used", "known"),
    [
        ((LOUD, SEEN), (0, 0), "both", True),
        ((LOUD, SEEN), (0, 2), "audio", True),
        ((LOUD, SEEN), (2, 0), "image", True),
        ((LOUD, SEEN), (2, 2), "both", False),
        ((SILENT, SEEN), (0, 0), "image", True),
        ((LOUD, PLAIN), (0, 0), "audio", True),
        ((SILENT, PLAIN), (0, 0), "both", False),
    ],
)
def test_modalities_of_a_video_that_are_clear_are_fused(window, novelty, used, known):
    prediction = combined(window, audio=([0.6], novelty[:1]), image=([0.2], novelty[1:]))
    audio = np.array([0.16, 0.36]) / 0.52
    image = np.sqrt([0.8, 0.2]) / np.sqrt([0.8, 0.2]).sum()
    product = audio * image**0.5
    expected = {"audio": audio, "image": image, "both": product / product.sum()}[used]
    for answer in (prediction, prediction.windows[0]):
        assert (answer.modality, answer.known) == (used, known)
        assert np.allclose(answer.probabilities, expected)


def test_modalities_may_differ_in_length():
    prediction = combined(
        (LOUD, SEEN), (None, SEEN), (LOUD, None),
        audio=([0.9, 0.8], [0, 0]), image=([0.6, 0.6], [0, 0]),
    )  # fmt: skip
    assert [window.modality for window in prediction.windows] == ["both", "image", "audio"]
    assert prediction.modality == "both"


def example(item="a.mp4", known=(True, False, True), modality="both"):
    tables = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])
    windows = tuple(
        WindowPrediction(float(n), 1.0 - 0.25 * n, modality, row, is_known)
        for n, (row, is_known) in enumerate(zip(tables, known, strict=False))
    )
    whole = np.array([0.25, 0.5, 0.25])
    return Prediction(item, modality, CLASSES, whole, any(known), {"audio": 0.5}, windows)


def test_the_answer_and_the_ranking():
    prediction = example()
    assert prediction.answer == "flute"
    assert prediction.top(2) == [("flute", 0.5), ("banjo", 0.25)]
    assert prediction.top(99)[-1] == ("piano", 0.25), "ties in the order of the classes"
    assert ranked(("b", "a"), np.array([0.5, 0.5])) == [("b", 0.5), ("a", 0.5)]
    assert list(prediction.as_row()) == ["instrument", "probability", "modality", *CLASSES]
    unknown = example(known=(False,))
    assert unknown.answer == "unknown" and unknown.top(1) == [("flute", 0.5)]
    assert unknown.as_row()["instrument"] == "unknown" and unknown.as_row()["probability"] == 0.5


def test_as_dict_is_json():
    values = example().as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["probabilities"] == {"flute": 0.5, "banjo": 0.25, "piano": 0.25}
    assert values["windows"][1] == {
        "start_s": 1.0, "seconds": 0.75, "modality": "both", "instrument": "unknown",
        "probability": 0.8,
    }  # fmt: skip
    assert (values["item"], values["instrument"], values["known"]) == ("a.mp4", "flute", True)
    assert values["novelty"] == {"audio": 0.5}


def test_a_timeline_has_one_row_per_window():
    table = timeline([example(), example("b.jpg", (True,), "image")])
    assert table["item"].to_list() == ["a.mp4"] * 3 + ["b.jpg"]
    assert table["instrument"].to_list() == ["banjo", "unknown", "flute", "banjo"]
    assert table["start_s"].to_list() == [0, 1, 2, 0]
    assert table["probability"].to_list() == [0.5, 0.8, 0.6, 0.5]
    assert table["modality"].to_list() == ["both"] * 3 + ["image"]
    assert np.allclose(table[list(CLASSES)].sum(axis=1), 1)
    assert list(table.columns[:6]) == list(timeline([]).columns) and timeline([]).empty
