"""Fitting a calibrator and a reference: on a small classifier whose encoders have no weights."""

import numpy as np
import pytest

from anymodal.classifier.fit import attach_calibration, reference_of
from helpers.small import CLASSES, COUNTS, PARAMS, all_rows, calibrated, uncalibrated

MODALITIES = ("audio", "image")


@pytest.fixture(scope="module")
def fitted():
    return calibrated()


def test_what_a_calibrator_is_fitted_on(fitted):
    calibrator = fitted[0].calibrator
    valid = 3 * COUNTS["valid"]
    assert calibrator.floor == 0.5 / 40
    assert calibrator.facts == {
        "ood_keep_rate": 0.97,
        "pairing": "class",
        "calibration_rows": {"audio": valid, "image": valid},
        "fusion_pairs": 3 * COUNTS["valid"] ** 2,
        "novelty_rows": {m: {"train": 2 * 3 * COUNTS["train"], "valid": 2 * valid}
                         for m in MODALITIES},
    }  # fmt: skip
    for modality in MODALITIES:
        assert len(calibrator.novelty[modality].components) == PARAMS.subspace
        assert 0.05 < calibrator.temperatures[modality] < 20


def test_no_test_row_enters_a_calibrator(fitted):
    classifier, features, rows = fitted
    again, _ = uncalibrated(rows)
    blind, own = ({s: table[s] for s in ("train", "valid")} for table in (features, rows))
    attach_calibration(again, blind, own, all_rows(subset="translate", test=0), PARAMS, 0)
    assert again.calibrator.temperatures == classifier.calibrator.temperatures
    assert again.calibrator.weights == classifier.calibrator.weights


def test_without_validation_rows_the_calibrator_is_the_default():
    rows = all_rows(valid=0, test=0)
    classifier, features = uncalibrated(rows)
    more = all_rows(subset="translate", valid=0)
    attach_calibration(classifier, features, rows, more, PARAMS, 0)
    calibrator = classifier.calibrator
    assert calibrator.temperatures == {"audio": 1.0, "image": 1.0}
    assert (calibrator.weights.audio, calibrator.weights.image) == (1.0, 1.0)
    assert calibrator.novelty == {}


def test_a_reference_keeps_training_rows(fitted):
    classifier, _, rows = fitted
    parts = [all_rows(subset="translate")["train"], rows["train"]]
    whole = reference_of(classifier, parts, 9999, 0)
    assert len(whole.table) == 2 * 2 * 3 * COUNTS["train"]
    name, images = "image-classify-train-1-4", rows["train"]["image"]
    kept = int(np.flatnonzero(whole.table["clip_id"] == name)[0])
    row = int(np.flatnonzero(images.clips["clip_id"] == name)[0])
    joint = classifier.projection.project("image", images.matrix[[row]])[0]
    assert np.array_equal(whole.vectors[kept], joint)
    assert whole.table.loc[kept, ["modality", "instrument", "path", "start_s"]].to_list() == [
        "image", CLASSES[1], images.clips.loc[row, "image"], 0.5,
    ]  # fmt: skip
    sample, again, other = (reference_of(classifier, parts, 10, seed).table for seed in (0, 0, 1))
    assert sample["modality"].value_counts().to_dict() == {"audio": 10, "image": 10}
    assert again.equals(sample) and not other.equals(sample)
    assert reference_of(classifier, parts, 0, 0) is None
