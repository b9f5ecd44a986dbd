"""The classifier of a finished pipeline on real and synthetic items."""

import json
import sys

import numpy as np
import pytest

from anymodal.classifier.model import ModalityAgnosticClassifier
from helpers.paths import shared

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier(finished):
    return ModalityAgnosticClassifier.load(finished.folder / "artifacts/classifier")


def test_instruments_are_mostly_named(classifier):
    """The pack was made of these very files, test and training ones alike."""
    (instruments,) = shared("data/instruments")
    for kind in ("audio", "images"):
        files = [min((instruments / kind / name).iterdir()) for name in classifier.classes]
        predictions = classifier.predict(files)
        assert np.mean([prediction.known for prediction in predictions]) >= 0.7
        named = np.array([prediction.top(1)[0][0] for prediction in predictions])
        assert (named == classifier.classes_).mean() >= 0.7


def test_the_calibrator_was_fitted_and_measured(classifier, finished):
    path = finished.folder / "artifacts/classification/calibration.json"
    result = json.loads(path.read_text())
    assert (result["dataset"], result["pairing"]) == ("instruments", "class")
    assert result["pair"] == classifier.facts["pair"]
    assert result["calibration_rows"] == classifier.calibrator.facts["calibration_rows"]
    for modality, measured in result["modalities"].items():
        assert measured["temperature"] == classifier.calibrator.temperatures[modality]
        assert measured["known"] > 0.8
    assert result["fusion"]["both"] > result["fusion"]["audio"]
    assert all(rate["unknown"] > 0.5 for rate in result["unknown"].values())
    reference = classifier.reference.table
    assert set(reference["instrument"]) <= set(classifier.classes) and len(reference) > 100


def test_the_registered_model_loads_by_its_uri(finished):
    # in another process, since MLflow's store is a setting of the whole process
    script = """
import anymodal.core.errors, anymodal.classifier.model
load = anymodal.classifier.model.ModalityAgnosticClassifier.load
assert len(load("models:/anymodal-classifier@champion").classes) == 10
try:
    load("models:/anymodal-classifier@nobody")
except anymodal.core.errors.AnymodalError as error:
    assert "cannot fetch" in str(error), error
else:
    raise AssertionError("a missing version was loaded")
"""
    finished.run(sys.executable, "-c", script)
