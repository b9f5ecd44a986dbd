"""The forest's node in onnxruntime against scikit-learn."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto
from sklearn.ensemble import RandomForestClassifier

from anymodal.export.forest import rounded_down, tree_ensemble
from anymodal.export.head import Graph, tensor


def counted(forest, rows, threads=1):
    """The node alone, run: the shares of the trees, summed and then divided."""
    graph = Graph()
    graph.nodes.append(tree_ensemble(forest, "x", "y"))
    x = tensor("x", TensorProto.FLOAT, forest.n_features_in_)
    y = tensor("y", TensorProto.FLOAT, len(forest.classes_))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = graph.model("test", [x], [y]).SerializeToString()
    (votes,) = onnxruntime.InferenceSession(model, options).run(None, {"x": rows})
    return votes.astype(np.float64) / len(forest.estimators_)


def fitted(rows=120, dim=5, classes=4, seed=0, **options):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, dim)).astype(np.float32)
    forest = RandomForestClassifier(**{"n_estimators": 40, "random_state": seed, **options})
    return forest.fit(features, rng.integers(0, classes, rows)), features


@pytest.mark.parametrize(
    "options",
    [{}, {"n_estimators": 1}, {"rows": 1}, {"classes": 1}, {"classes": 2},
     {"n_estimators": 120, "max_depth": 32}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_votes_of_pure_leaves_are_the_same_numbers(options, threads):
    forest, features = fitted(**options)
    other = np.random.default_rng(1).normal(size=(700, 5)).astype(np.float32)
    for rows in (features, other, features[:1]):
        np.testing.assert_array_equal(counted(forest, rows, threads), forest.predict_proba(rows))


@pytest.mark.parametrize("options", [{"max_depth": 1}, {"min_samples_leaf": 7}], ids=str)
def test_votes_of_mixed_leaves_differ_by_rounding_alone(options):
    forest, features = fitted(**options)
    got, expected = counted(forest, features, 2), forest.predict_proba(features)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_rows_at_the_thresholds_fall_on_the_same_side():
    forest, _ = fitted()
    rows = []
    for tree in (estimator.tree_ for estimator in forest.estimators_):
        for node in np.flatnonzero(tree.children_left >= 0):
            near = np.float32(tree.threshold[node])
            for value in (np.nextafter(near, near - 9), near, np.nextafter(near, near + 9)):
                row = np.zeros(5, np.float32)
                row[tree.feature[node]] = value
                rows.append(row)
    rows = np.array(rows)
    np.testing.assert_array_equal(counted(forest, rows), forest.predict_proba(rows))
    # thresholds rounded to the nearest would not do: this test can fail
    assert any(
        (np.float32(e.tree_.threshold).astype(np.float64) > e.tree_.threshold).any()
        for e in forest.estimators_
    )


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, 8, elements=st.floats(-1e30, 1e30)))
def test_rounding_down_changes_no_comparison(thresholds):
    down = rounded_down(thresholds)
    assert down.dtype == np.float32
    for near in (down, np.nextafter(down, np.float32(np.inf)), -down, np.zeros_like(down)):
        np.testing.assert_array_equal(near <= thresholds, near <= down)
