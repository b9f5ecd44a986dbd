"""A random forest as one ONNX node that counts the same votes.

The operator keeps thresholds as float32 where scikit-learn has float64. Joint vectors are float32,
and for those `x <= t` and `x <= t rounded down to float32` are the same question: every row ends
in the same leaf of every tree.

A leaf gives the shares of its classes, and the node adds them up over the trees: whole numbers
wherever leaves are pure, which float32 holds exactly in any order of adding. Dividing by the number
of trees comes afterwards, in float64. (A converter that divides first adds up hundredths, whose
sum depends on the order that threads finish in: of rows with two best classes some change their
answer. benchmarks/onnx_export.py counts them.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, helper

from anymodal.errors import AnymodalError

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

ML_OPSET = 3
"""Version of the operator set `ai.onnx.ml`."""


def tree_ensemble(forest: RandomForestClassifier, joint: str, votes: str) -> NodeProto:
    """The node that maps `joint`, float32 (n, dimensions), to `votes`, float32 (n, classes): the
    sum over the trees of the shares in the leaf that a row falls into.

    Raises `AnymodalError` for a forest of several outputs.
    """
    if getattr(forest, "n_outputs_", 1) != 1:
        raise AnymodalError("a forest of several outputs cannot be exported")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    for number, estimator in enumerate(forest.estimators_):
        for name, values in _tree(number, estimator.tree_).items():
            columns[name].append(values)
    flat = {name: np.concatenate(parts) for name, parts in columns.items()}
    modes = np.where(flat.pop("leaf"), "LEAF", "BRANCH_LEQ").tolist()
    return helper.make_node(
        "TreeEnsembleRegressor",
        [joint],
        [votes],
        domain="ai.onnx.ml",
        n_targets=len(forest.classes_),
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_modes=modes,
        **{name: values.tolist() for name, values in flat.items()},
    )


def rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 that is not above each of the float64 `thresholds`."""
    single = thresholds.astype(np.float32)
    above = single.astype(np.float64) > thresholds
    single[above] = np.nextafter(single[above], np.float32(-np.inf))
    return single


_COLUMNS = (
    "leaf",
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "target_treeids",
    "target_nodeids",
    "target_ids",
    "target_weights",
)


def _tree(number: int, tree: object) -> dict[str, np.ndarray]:
    left = np.asarray(tree.children_left)  # type: ignore[attr-defined]
    right = np.asarray(tree.children_right)  # type: ignore[attr-defined]
    feature = np.asarray(tree.feature)  # type: ignore[attr-defined]
    threshold = np.asarray(tree.threshold)  # type: ignore[attr-defined]
    shares = np.asarray(tree.value)[:, 0]  # type: ignore[attr-defined]
    leaf = left < 0
    # rows of a leaf's classes: those it has none of take no space
    at, classes = np.nonzero(leaf[:, None] & (shares > 0))
    shares = shares / np.where(leaf, shares.sum(axis=1), 1.0)[:, None]
    return {
        "leaf": leaf,
        "nodes_treeids": np.full(len(leaf), number),
        "nodes_nodeids": np.arange(len(leaf)),
        "nodes_featureids": np.where(leaf, 0, feature),
        "nodes_values": rounded_down(np.where(leaf, 0.0, threshold)),
        "nodes_truenodeids": np.where(leaf, 0, left),
        "nodes_falsenodeids": np.where(leaf, 0, right),
        "target_treeids": np.full(len(at), number),
        "target_nodeids": at,
        "target_ids": classes,
        "target_weights": shares[at, classes].astype(np.float32),
    }
