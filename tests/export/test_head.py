"""Heads in onnxruntime against scikit-learn, the projections and the judge themselves."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier

from anymodal.encoders.base import MODALITIES
from anymodal.errors import AnymodalError
from anymodal.judge import Judge
from anymodal.onnx.forest import rounded_down, tree_ensemble
from anymodal.onnx.graph import Graph
from anymodal.onnx.head import OPSETS, head
from anymodal.onnx.parity import random_embeddings
from onnxed import CLASSES, tiny


def counted(forest, rows, threads=1):
    """The node alone, run: the sum of the trees' shares."""
    graph = Graph("test")
    graph.nodes.append(tree_ensemble(forest, "x", "y"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", forest.n_features_in_])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(forest.classes_)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = graph.model("test", [x], [y], OPSETS).SerializeToString()
    return onnxruntime.InferenceSession(model, options).run(None, {"x": rows})[0]


def fitted(rows=120, dim=5, classes=4, seed=0, **options):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, dim)).astype(np.float32)
    forest = RandomForestClassifier(**{"n_estimators": 40, "random_state": seed, **options})
    return forest.fit(features, rng.integers(0, classes, rows)), features


@pytest.mark.parametrize(
    "options",
    [{}, {"n_estimators": 1}, {"max_depth": 1}, {"rows": 1}, {"classes": 1}, {"classes": 2},
     {"n_estimators": 120, "max_depth": 32}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_votes_of_pure_leaves_are_the_same_numbers(options, threads):
    pure = {"max_depth": None} | options
    forest, features = fitted(**pure)
    rng = np.random.default_rng(1)
    for rows in (features, rng.normal(size=(700, 5)).astype(np.float32), features[:1]):
        got = counted(forest, rows, threads).astype(np.float64) / len(forest.estimators_)
        if options.get("max_depth") == 1:  # its leaves are mixed
            np.testing.assert_allclose(got, forest.predict_proba(rows), atol=1e-6)
        else:
            np.testing.assert_array_equal(got, forest.predict_proba(rows))


def test_rows_at_the_very_thresholds_fall_on_the_same_side():
    forest, _ = fitted()
    rows = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        for node in np.flatnonzero(tree.children_left >= 0):
            near = np.float32(tree.threshold[node])
            for value in (
                np.nextafter(near, np.float32(-9)),
                near,
                np.nextafter(near, np.float32(9)),
            ):
                row = np.zeros(5, np.float32)
                row[tree.feature[node]] = value
                rows.append(row)
    rows = np.array(rows)
    got = counted(forest, rows) / np.float64(len(forest.estimators_))
    np.testing.assert_array_equal(got, forest.predict_proba(rows))
    # thresholds rounded to the nearest would not do: this test can fail
    assert any(
        (np.float32(t.tree_.threshold).astype(np.float64) > t.tree_.threshold).any()
        for t in forest.estimators_
    )


def test_mixed_leaves_differ_by_rounding_alone():
    forest, features = fitted(min_samples_leaf=7)
    got = counted(forest, features) / np.float64(len(forest.estimators_))
    np.testing.assert_allclose(got, forest.predict_proba(features), atol=1e-6)


def test_a_forest_of_two_questions_is_refused():
    rng = np.random.default_rng(0)
    forest = RandomForestClassifier(2).fit(rng.normal(size=(9, 2)), rng.integers(0, 2, (9, 2)))
    with pytest.raises(AnymodalError, match="several outputs"):
        tree_ensemble(forest, "x", "y")


@settings(max_examples=80, deadline=None)
@given(arrays(np.float64, 8, elements=st.floats(-1e30, 1e30)))
def test_rounding_down_changes_no_comparison(thresholds):
    down = rounded_down(thresholds)
    assert down.dtype == np.float32
    for near in (down, np.nextafter(down, np.float32(np.inf)), -down, np.zeros_like(down)):
        np.testing.assert_array_equal(near <= thresholds, near <= down)


def outputs(classifier, modality, embeddings):
    model = head(classifier.projection, classifier.forest, modality, classifier.judge)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {"embedding": embeddings}), strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "relu"}, {"activation": "gelu"}, {"depth": 1}, {"depth": 3},
     {"kind": "pca"}, {"forest": {"n_estimators": 1}}, {"forest": {"min_samples_leaf": 5}},
     {"judge": Judge()}, {"judge": Judge({"audio": 0.3, "image": 5.0}, 0.0)}],
    ids=str,
)  # fmt: skip
def test_a_head_is_projection_forest_and_judge(options):
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
            expected = classifier.judge.calibrated(modality, got["votes"])
        np.testing.assert_allclose(got["probabilities"], expected, atol=1e-12)
        np.testing.assert_allclose(got["probabilities"].sum(axis=1), 1, atol=1e-12)
        novelty = classifier.judge.novelties(modality, embeddings)
        np.testing.assert_allclose(got["novelty"], novelty, rtol=1e-9)
        assert got["votes"].shape == (300, len(CLASSES))


def test_a_probability_of_zero_stays_zero_without_a_floor():
    judge = Judge({"audio": 2.0, "image": 1.0}, 0.0)
    classifier = tiny(judge=judge, forest={"n_estimators": 3})
    got = outputs(classifier, "audio", random_embeddings(12, 50, np.random.default_rng(0)))
    none = got["votes"] == 0
    assert none.any() and (got["probabilities"][none] == 0).all()
    floored = tiny(judge=Judge(floor=0.1), forest={"n_estimators": 3})
    got = outputs(floored, "audio", random_embeddings(12, 50, np.random.default_rng(0)))
    assert (got["probabilities"] > 0.05).all()


@pytest.mark.parametrize("kind", ["translation", "pca"])
def test_a_row_is_the_same_alone_and_in_any_batch(kind):
    classifier = tiny(kind=kind)
    embeddings = random_embeddings(9, 70, np.random.default_rng(3))
    together = outputs(classifier, "image", embeddings)
    for rows in (slice(0, 0), slice(5, 6), slice(3, 40)):
        got = outputs(classifier, "image", embeddings[rows])
        for name, values in got.items():
            np.testing.assert_allclose(values, together[name][rows], atol=1e-12, err_msg=name)
            assert values.shape == together[name][rows].shape


def test_an_all_zero_vector_has_no_direction():
    classifier = tiny(depth=1)
    branch = classifier.projection.branches["audio"]
    branch.out.weight.data.zero_()
    branch.out.bias.data.zero_()
    got = outputs(classifier, "audio", np.ones((2, 12), np.float32))
    np.testing.assert_array_equal(got["joint"], 0)


def test_what_cannot_be_written_is_refused():
    classifier = tiny()
    classifier.projection.branches["audio"].activation = np.tanh
    with pytest.raises(AnymodalError, match="activation of its own"):
        head(classifier.projection, classifier.forest, "audio", classifier.judge)
