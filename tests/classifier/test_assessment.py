"""What is measured on test rows, and the fusion's bootstrap against a plain loop."""

import numpy as np
import pytest

from anymodal.classifier import assessment
from anymodal.classifier.assessment import CalibrationResult, assess_calibrator, compare_fusion
from anymodal.classifier.fit import attach_calibration
from anymodal.classifier.fusion import Pairs
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.classifier.open_set import OpenSetCalibrator
from helpers.small import COUNTS, NETWORKS, PARAMS, all_rows, calibrated, uncalibrated

MODALITIES = ("audio", "image")


@pytest.fixture(scope="module", autouse=True)
def few_items():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assessment, "SYNTHETIC_ITEMS", 10)
        yield


@pytest.fixture(scope="module")
def measured(few_items):
    return assess_calibrator(*calibrated(), 300, 0)


def test_measured_on_test_rows(measured, tmp_path):
    classifier, features, _ = calibrated()
    for modality in MODALITIES:
        result = measured.modalities[modality]
        truth = features["test"][modality].instruments
        votes = classifier.forest.predict_proba(features["test"][modality].features)
        correct = classifier.classes_[votes.argmax(axis=1)] == truth
        assert (result.accuracy, result.test_rows) == (correct.mean(), len(truth))
        # one label in twelve is wrong
        assert result.accuracy == pytest.approx(11 / 12, abs=0.06)
        assert sum(point.rows for point in result.reliability) == len(truth)
        assert result.known > 0.85
        # votes without calibration are probabilities too
        held = np.maximum(votes, classifier.calibrator.floor)
        held /= held.sum(axis=1, keepdims=True)
        codes = np.searchsorted(classifier.classes_, truth)
        expected = -np.log(held[np.arange(len(codes)), codes]).mean()
        assert result.nll_of_votes == pytest.approx(expected)
    fusion = measured.fusion
    assert fusion.pairs == 3 * COUNTS["test"] ** 2
    assert fusion.difference == pytest.approx(fusion.both - getattr(fusion, fusion.better))
    low, high = fusion.interval
    assert low <= fusion.difference <= high
    assert set(measured.unknown) == {"noise", "speech-like", "texture"}
    assert measured.unknown["noise"].unknown > 0.5
    measured.write(tmp_path / "calibration.json")
    assert CalibrationResult.read(tmp_path / "calibration.json", "classify") == measured


def test_clips_are_paired_with_themselves():
    result = assess_calibrator(*calibrated("clip"), 100, 0)
    assert result.fusion_pairs == 3 * COUNTS["valid"]
    assert (result.fusion.pairs, result.fusion.pairing) == (3 * COUNTS["test"], "clip")


def test_without_rows_nothing_is_measured(tmp_path):
    rows = all_rows(valid=0, test=0)
    classifier, features = uncalibrated(rows)
    more = all_rows(subset="translate", valid=0)
    attach_calibration(classifier, features, rows, more, PARAMS, 0)
    result = assess_calibrator(classifier, features, rows, 10, 0)
    assert result.fusion.interval is None and result.fusion.difference is None
    of_audio = result.modalities["audio"]
    assert (of_audio.ece, of_audio.nll, of_audio.known, of_audio.accuracy) == (None,) * 4
    result.write(tmp_path / "calibration.json")
    assert CalibrationResult.read(tmp_path / "calibration.json", "classify") == result


def test_without_thresholds_all_but_blank_items_are_known():
    classifier, features, rows = calibrated()
    blind = classifier.calibrator.model_copy(update={"novelty": {}})
    other = ModalityAgnosticClassifier(
        classifier.projection, classifier.forest, NETWORKS, classifier.facts, calibrator=blind
    )
    result = assess_calibrator(other, features, rows, 10, 0)
    assert (result.modalities["audio"].known, result.modalities["audio"].threshold) == (1.0, None)
    assert 0 < result.unknown["noise"].unknown <= 0.5
    assert result.unknown["speech-like"].unknown == 0


# ------------------------------------------------------------------------- what fusion is worth


def scene(seed=0, audio=9, image=7):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, audio), rng.integers(0, 3, image)
    pairs = Pairs(*np.nonzero(classes[0][:, None] == classes[1]))
    skills = {"audio": 0.6, "image": 0.8, "both": 0.9}
    correct = {name: rng.random(len(pairs.audio)) < skill for name, skill in skills.items()}
    groups = {
        "audio": np.array([f"a{n // 2}" for n in range(audio)], dtype=object),
        "image": np.array([f"i{n // 2}" for n in range(image)], dtype=object),
    }
    return correct, pairs, groups


def compare(correct, pairs, groups, replicates, seed, pairing="class"):
    calibrator = OpenSetCalibrator(facts={"pairing": pairing})
    return compare_fusion(calibrator, correct, pairs, groups, replicates, seed)


def slow_interval(correct, pairs, groups, replicates, seed, pairing):
    """Groups drawn one after another, and every pair weighted anew."""
    rng = np.random.default_rng(seed)
    better = max(MODALITIES, key=lambda name: correct[name].mean())
    names = {m: sorted(set(of_rows)) for m, of_rows in groups.items()}
    values = []
    for _ in range(replicates):
        drawn = {m: [n[k] for k in rng.integers(0, len(n), len(n))] for m, n in names.items()}
        total = count = 0
        for number, (audio, image) in enumerate(zip(*pairs, strict=True)):
            weight = drawn["audio"].count(groups["audio"][audio])
            if pairing == "class":
                weight *= drawn["image"].count(groups["image"][image])
            total += weight * (int(correct["both"][number]) - int(correct[better][number]))
            count += weight
        if count:
            values.append(total / count)
    return np.quantile(values, (0.025, 0.975))


@pytest.mark.parametrize("pairing", ["class", "clip"])
def test_the_interval_against_a_plain_loop(pairing):
    correct, pairs, groups = scene()
    result = compare(correct, pairs, groups, 20_000, 1, pairing)
    slow = slow_interval(correct, pairs, groups, 3000, 2, pairing)
    assert np.allclose(result.interval, slow, atol=0.03)
    assert (result.better, result.pairs) == ("image", len(pairs.audio))
    assert result.difference == pytest.approx(correct["both"].mean() - correct["image"].mean())
    assert (result.audio, result.both) == (correct["audio"].mean(), correct["both"].mean())
    assert compare(correct, pairs, groups, 20_000, 1, pairing) == result


def test_blocks_of_resamples_change_nothing_but_the_draw(monkeypatch):
    whole = compare(*scene(3, 60, 50), 4000, 0)
    monkeypatch.setattr(assessment, "BLOCK", 2**14)
    assert np.allclose(compare(*scene(3, 60, 50), 4000, 0).interval, whole.interval, atol=0.01)


def test_equal_answers_and_no_pairs():
    correct, pairs, groups = scene()
    result = compare(dict.fromkeys(correct, correct["audio"]), pairs, groups, 50, 0)
    assert (result.difference, result.interval) == (0, (0, 0))
    none = np.empty(0, dtype=bool)
    pairs = Pairs(np.empty(0, dtype=int), np.empty(0, dtype=int))
    result = compare(dict.fromkeys(correct, none), pairs, dict.fromkeys(MODALITIES, none), 10, 0)
    assert (result.interval, result.pairs, result.difference) == (None, 0, None)
