"""Fitting and measuring a judge: on a small classifier whose encoders have no weights."""

import json
from dataclasses import replace

import numpy as np
import pytest

from anymodal.model import ModalityAgnosticClassifier
from anymodal.report.judge_figures import reliability_figure
from anymodal.report.judge_readings import calibration_reading, fusion_reading, unknown_reading
from anymodal.report.records import Judged
from anymodal.run_metrics import of_judge
from anymodal.stages.judging import fit_judge, measure_judge, reference_of
from small import CLASSES, COUNTS, NETWORKS, PARAMS, all_rows, judged, plain

MODALITIES = ("audio", "image")


@pytest.fixture(scope="module")
def fitted():
    return judged()


@pytest.fixture(scope="module")
def measured(fitted):
    classifier, features, rows = fitted
    return measure_judge(classifier, features, rows, 300, 0)


def test_what_a_judge_is_fitted_on(fitted):
    judge = fitted[0].judge
    valid = 3 * COUNTS["valid"]
    assert judge.floor == 0.5 / 40
    assert judge.facts == {
        "keep": 0.97,
        "pairing": "class",
        "calibration_rows": {"audio": valid, "image": valid},
        "fusion_pairs": 3 * COUNTS["valid"] ** 2,
        "novelty_rows": {m: {"train": 2 * 3 * COUNTS["train"], "valid": 2 * valid}
                         for m in MODALITIES},
    }  # fmt: skip
    for modality in MODALITIES:
        assert len(judge.novelty[modality].components) == PARAMS.subspace
        assert 0.05 < judge.temperatures[modality] < 20


def test_no_test_row_enters_a_judge(fitted):
    classifier, features, rows = fitted
    blind = {split: features[split] for split in ("train", "valid")}
    more = all_rows(subset="translate", test=0)
    own = {split: rows[split] for split in blind}
    again = fit_judge(classifier, blind, own, more, PARAMS, "class", 0)
    assert again.temperatures == classifier.judge.temperatures
    assert again.weights == classifier.judge.weights


def test_the_threshold_keeps_the_share_of_validation_rows_that_was_asked_for(fitted):
    classifier, _, rows = fitted
    more = all_rows(subset="translate")
    for modality in MODALITIES:
        held = np.concatenate([one["valid"][modality].matrix for one in (rows, more)])
        kept = (classifier.judge.novelties(modality, held) <= 1).mean()
        assert 0.97 <= kept < 0.99


def test_what_is_measured(fitted, measured):
    classifier, features, _ = fitted
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    for modality in MODALITIES:
        one = measured["modalities"][modality]
        truth = features["test"][modality].instruments
        votes = classifier.forest.predict_proba(features["test"][modality].features)
        right = classifier.classes_[votes.argmax(axis=1)] == truth
        assert one["accuracy"] == right.mean() and one["test_rows"] == len(truth)
        # one label in twelve is wrong
        assert one["accuracy"] == pytest.approx(11 / 12, abs=0.06)
        assert sum(p["rows"] for p in one["reliability"]) == len(truth)
        assert one["known"] > 0.85
    fusion = measured["fusion"]
    assert fusion["pairs"] == 3 * COUNTS["test"] ** 2
    assert fusion["difference"] == pytest.approx(fusion["both"] - fusion[fusion["better"]])
    low, high = fusion["interval"]
    assert low <= fusion["difference"] <= high
    assert set(measured["unknown"]) == {"noise", "speech-like", "texture"}
    assert measured["unknown"]["noise"]["unknown"] > 0.5


def test_votes_without_calibration_are_probabilities_too(fitted, measured):
    classifier, features, _ = fitted
    votes = classifier.forest.predict_proba(features["test"]["audio"].features)
    held = np.maximum(votes, classifier.judge.floor)
    held /= held.sum(axis=1, keepdims=True)
    codes = np.searchsorted(classifier.classes_, features["test"]["audio"].instruments)
    expected = -np.log(held[np.arange(len(codes)), codes]).mean()
    assert measured["modalities"]["audio"]["nll_of_votes"] == pytest.approx(expected)


def test_clips_are_paired_with_themselves():
    classifier, features, rows = judged("clip")
    assert classifier.judge.facts["fusion_pairs"] == 3 * COUNTS["valid"]
    told = measure_judge(classifier, features, rows, 100, 0)
    assert told["fusion"]["pairs"] == 3 * COUNTS["test"]
    assert told["fusion"]["pairing"] == "clip"


def test_without_validation_and_test_rows_nothing_is_made_up():
    rows = all_rows(valid=0, test=0)
    classifier, features = plain(rows)
    more = all_rows(subset="translate", valid=0)
    classifier.judge = fit_judge(classifier, features, rows, more, PARAMS, "class", 0)
    assert classifier.judge.temperatures == {"audio": 1.0, "image": 1.0}
    assert tuple(classifier.judge.weights) == (1.0, 1.0) and classifier.judge.novelty == {}
    told = measure_judge(classifier, features, rows, 10, 0)
    json.dumps(told, allow_nan=False)
    judged_ = Judged.model_validate(told)
    assert judged_.fusion.interval is None and judged_.modalities["audio"].ece is None
    assert "no sounds to test" in calibration_reading(judged_.modalities["audio"], "audio")[0]
    assert "was not measured" in fusion_reading(judged_.fusion)[0]
    assert of_judge(told) == {
        f"called_unknown/{kind}": one["unknown"] for kind, one in told["unknown"].items()
    }
    reliability_figure(told)


def test_a_reference_keeps_training_rows(fitted):
    classifier, _, rows = fitted
    parts = [all_rows(subset="translate")["train"], rows["train"]]
    whole = reference_of(classifier, parts, 9999, 0)
    assert len(whole.table) == 2 * 2 * 3 * COUNTS["train"]
    row = int(np.flatnonzero(whole.table["clip_id"] == "image-classify-train-1-4")[0])
    matrix = rows["train"]["image"]
    at = int(np.flatnonzero(matrix.clips["clip_id"] == "image-classify-train-1-4")[0])
    joint = classifier.projection.project("image", matrix.matrix[[at]])[0]
    assert np.array_equal(whole.vectors[row], joint)
    assert whole.table.loc[row, ["modality", "instrument", "path", "start_s"]].to_list() == [
        "image", CLASSES[1], matrix.clips.loc[at, "image"], 0.5,
    ]  # fmt: skip
    some = reference_of(classifier, parts, 10, 0)
    assert some.table["modality"].value_counts().to_dict() == {"audio": 10, "image": 10}
    assert reference_of(classifier, parts, 10, 0).table.equals(some.table)
    assert not reference_of(classifier, parts, 10, 1).table.equals(some.table)
    assert reference_of(classifier, parts, 0, 0) is None


# ------------------------------------------------------------------------------- what is told


def test_metrics(measured):
    told = of_judge(measured)
    assert told["ece/audio"] == measured["modalities"]["audio"]["ece"]
    assert told["known/image"] == measured["modalities"]["image"]["known"]
    assert told["fusion_accuracy/both"] == measured["fusion"]["both"]
    assert told["called_unknown/texture"] == measured["unknown"]["texture"]["unknown"]
    assert all(np.isfinite(value) for value in told.values()) and len(told) == 12


def test_readings(measured):
    told = Judged.model_validate(measured)
    sounds = told.modalities["audio"]
    for before, after, words in ((0.2, 0.1, "brings it to 0.100"), (0.1, 0.2, "makes it 0.200")):
        found = sounds.model_copy(update={"ece": after, "ece_of_votes": before})
        assert words in calibration_reading(found, "audio")[0]
    assert "36 test sounds" in calibration_reading(sounds, "audio")[1]
    unknown = " ".join(unknown_reading(told))
    assert (
        "of 50 noise, clicks and silence" in unknown
        and "keep 97\N{NO-BREAK SPACE}% of the validation" in unknown
    )
    for difference, interval, words in (
        (0.1, (0.05, 0.2), "better than the better one alone"),
        (-0.1, (-0.2, -0.05), "worse than the better one alone"),
        (0.1, (-0.05, 0.2), "not told apart"),
    ):
        fusion = told.fusion.model_copy(update={"difference": difference, "interval": interval})
        assert (
            words in fusion_reading(fusion)[1] and "share nothing but" in fusion_reading(fusion)[0]
        )
    filmed = told.fusion.model_copy(update={"pairing": "clip"})
    assert "of the same moment" in fusion_reading(filmed)[0]


def test_the_reliability_diagram(measured):
    figure = reliability_figure(measured)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "tested on sounds", "tested on pictures",
    ]  # fmt: skip
    for axes, modality in zip(figure.axes, MODALITIES, strict=True):
        votes, calibrated = axes.collections
        points = measured["modalities"][modality]["reliability"]
        assert np.allclose(calibrated.get_offsets(), [[p["confidence"], p["accuracy"]]
                                                      for p in points])  # fmt: skip
        assert len(votes.get_offsets()) == len(
            measured["modalities"][modality]["reliability_of_votes"]
        )


def test_a_judge_without_thresholds_knows_all_that_is_not_blank(fitted):
    classifier, features, rows = fitted
    blind = replace(classifier.judge, novelty={})
    other = ModalityAgnosticClassifier(
        classifier.projection, classifier.forest, NETWORKS, classifier.facts, judge=blind
    )
    told = measure_judge(other, features, rows, 10, 0)
    assert told["modalities"]["audio"]["known"] == 1.0
    assert told["modalities"]["audio"]["threshold"] is None
    assert 0 < told["unknown"]["noise"]["unknown"] < 0.5
    assert told["unknown"]["speech-like"]["unknown"] == 0
    assert "all of instruments that it knows" not in " ".join(
        unknown_reading(Judged.model_validate(told))
    )
