"""A random forest as one ONNX node that counts the same votes.

For float32 coordinates, `x <= t` and `x <= t rounded down to float32` are the same: every row
reaches the same leaves as in scikit-learn. Votes are summed, then divided by the number of trees;
dividing first, as skl2onnx does, changes some ties (benchmarks/onnx_export.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

ML_OPSET = 3


def tree_ensemble(forest: RandomForestClassifier, joint: str, votes: str) -> NodeProto:
    """Return the node that maps `joint`, float32 (n, dim), to `votes`, float32 (n, classes): the
    shares of the classes in each row's leaf, summed over the trees."""
    trees = [_tree(number, e.tree_) for number, e in enumerate(forest.estimators_)]
    columns = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    modes = np.where(columns.pop("leaf"), "LEAF", "BRANCH_LEQ").tolist()
    return helper.make_node(
        "TreeEnsembleRegressor",
        [joint],
        [votes],
        domain="ai.onnx.ml",
        n_targets=len(forest.classes_),
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_modes=modes,
        **{name: values.tolist() for name, values in columns.items()},
    )


def rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 not above each of the float64 `thresholds`."""
    single = thresholds.astype(np.float32)
    above = single.astype(np.float64) > thresholds
    single[above] = np.nextafter(single[above], np.float32(-np.inf))
    return single


def _tree(number: int, tree: Any) -> dict[str, np.ndarray]:
    leaf = tree.children_left < 0
    shares = tree.value[:, 0] / np.where(leaf, tree.value[:, 0].sum(axis=1), 1.0)[:, None]
    # one entry per leaf and class; classes without a share take no space
    nodes, classes = np.nonzero(leaf[:, None] & (shares > 0))
    return {
        "leaf": leaf,
        "nodes_treeids": np.full(len(leaf), number),
        "nodes_nodeids": np.arange(len(leaf)),
        "nodes_featureids": np.where(leaf, 0, tree.feature),
        "nodes_values": rounded_down(np.where(leaf, 0.0, tree.threshold)),
        "nodes_truenodeids": np.where(leaf, 0, tree.children_left),
        "nodes_falsenodeids": np.where(leaf, 0, tree.children_right),
        "target_treeids": np.full(len(nodes), number),
        "target_nodeids": nodes,
        "target_ids": classes,
        "target_weights": shares[nodes, classes].astype(np.float32),
    }
