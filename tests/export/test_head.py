"""Heads in onnxruntime against scikit-learn, the projections and the calibrator themselves."""

import numpy as np
import onnxruntime
import pytest

from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES
from anymodal.export.head import head
from anymodal.export.parity import random_embeddings
from helpers.exported import CLASSES, tiny


def outputs(classifier, modality, embeddings):
    model = head(classifier.projection, classifier.forest, modality, classifier.calibrator)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"embedding": embeddings}), strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu"}, {"activation": "gelu"}, {"depth": 1}, {"depth": 3},
     {"kind": "pca"}, {"forest": {"n_estimators": 1}}, {"forest": {"min_samples_leaf": 5}},
     {"calibrator": OpenSetCalibrator()},
     {"calibrator": OpenSetCalibrator(temperatures={"audio": 0.3, "image": 5.0}, floor=0.0)}],
    ids=range(10),
)  # fmt: skip
def test_a_head_is_projection_forest_and_calibrator(options):
    classifier = tiny(**options)
    for modality in MODALITIES:
        dim = classifier.networks[modality].dim
        embeddings = random_embeddings(dim, 300, np.random.default_rng(2))
        got = outputs(classifier, modality, embeddings)
        joint = classifier.projection.project(modality, embeddings)
        # the error function is the one step that onnxruntime has in float32 alone
        atol = 1e-6 if options.get("activation") == "gelu" else 1e-7
        np.testing.assert_allclose(got["joint"], joint, atol=atol * max(1, np.abs(joint).max()))
        assert got["joint"].dtype == np.float32
        votes = classifier.forest.predict_proba(got["joint"])
        np.testing.assert_allclose(got["votes"], votes, atol=1e-6)
        with np.errstate(divide="ignore"):
            expected = classifier.calibrator.calibrated(modality, got["votes"])
        np.testing.assert_allclose(got["probabilities"], expected, atol=1e-12)
        np.testing.assert_allclose(got["probabilities"].sum(axis=1), 1, atol=1e-12)
        novelty = classifier.calibrator.novelties(modality, embeddings)
        np.testing.assert_allclose(got["novelty"], novelty, rtol=1e-9)
        assert got["votes"].shape == (300, len(CLASSES))


def test_an_all_zero_vector_has_no_direction():
    classifier = tiny(depth=1)
    branch = classifier.projection.branches["audio"]
    branch.out.weight.data.zero_()
    branch.out.bias.data.zero_()
    got = outputs(classifier, "audio", np.ones((2, 12), np.float32))
    np.testing.assert_array_equal(got["joint"], 0)


def test_a_custom_activation_is_refused():
    classifier = tiny()
    classifier.projection.branches["audio"].activation = np.tanh
    with pytest.raises(AnymodalError, match="custom activation"):
        head(classifier.projection, classifier.forest, "audio", classifier.calibrator)
