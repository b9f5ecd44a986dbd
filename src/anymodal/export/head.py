"""The head: from an encoder's embedding to class probabilities, as an ONNX graph.

embedding (n, dim) → projection, in float64 as `anymodal.projection.base` has it → joint, float32
→ forest → votes, the share of the trees → `anymodal.calibration.tempered` → probabilities
embedding → `anymodal.judge.Judge.novelties` → novelty

Weights that were trained in float32 are stored so and widened when the graph is loaded: the same
numbers in half the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from anymodal.encoders.base import Modality
from anymodal.errors import AnymodalError
from anymodal.judge import Judge
from anymodal.novelty import Novelty
from anymodal.onnx.forest import ML_OPSET, tree_ensemble
from anymodal.onnx.graph import OPSET, Graph
from anymodal.projection.base import Projection

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from anymodal.projection.pca import PCAProjection
    from anymodal.projection.translation import Branch, Translation

OPSETS = {"": OPSET, "ai.onnx.ml": ML_OPSET}
INPUT = "embedding"
_SHORTEST = 1e-12
"""As in `anymodal.projection.translation.unit_rows`."""


def head(
    projection: Projection,
    forest: RandomForestClassifier,
    modality: Modality,
    judge: Judge,
) -> onnx.ModelProto:
    """The head of one modality: `embedding`, float32 (n, dim) → `probabilities` and `votes`,
    float64 (n, classes), `novelty`, float64 (n,), and `joint`, float32 (n, dimensions).

    Raises `AnymodalError` for a projection or a forest that is of no known kind.
    """
    graph = Graph("head")
    wide = graph.op("Cast", INPUT, to=TensorProto.DOUBLE)
    if projection.kind == "translation":
        branch = cast("Translation", projection).branches[modality]
        projected = _translated(graph, wide, cast("Branch", branch))
    elif projection.kind == "pca":
        axes = cast("PCAProjection", projection).axes[modality]
        centred = graph.op("Sub", wide, graph.constant(axes.mean.astype(np.float64)))
        components = graph.constant(axes.components.astype(np.float64).T)
        projected = graph.op("MatMul", centred, components)
    else:
        raise AnymodalError(f"a projection of kind {projection.kind!r} cannot be exported")
    joint = graph.op("Cast", projected, to=TensorProto.FLOAT, output="joint")
    graph.nodes.append(tree_ensemble(forest, joint, "head/counted"))
    counted = graph.op("Cast", "head/counted", to=TensorProto.DOUBLE)
    trees = graph.constant(np.array(float(len(forest.estimators_))))
    votes = graph.op("Div", counted, trees, output="votes")
    logs = graph.op("Log", graph.op("Max", votes, graph.constant(np.array(judge.floor))))
    cooled = graph.op("Div", logs, graph.constant(np.array(judge.temperatures[modality])))
    graph.op("Softmax", cooled, axis=1, output="probabilities")
    _novelty(graph, wide, judge.novelty.get(modality))
    classes = len(forest.classes_)
    return graph.model(
        f"{modality}_head",
        [_tensor(INPUT, TensorProto.FLOAT, projection.dims[modality])],
        [
            _tensor("probabilities", TensorProto.DOUBLE, classes),
            _tensor("votes", TensorProto.DOUBLE, classes),
            helper.make_tensor_value_info("novelty", TensorProto.DOUBLE, ["n"]),
            _tensor("joint", TensorProto.FLOAT, projection.dim),
        ],
        OPSETS,
    )


def _translated(graph: Graph, x: str, branch: Branch) -> str:
    tensors: Mapping[str, Any] = branch.state_dict()

    def stored(name: str, transpose: bool = False) -> str:
        value = tensors[name].detach().cpu().numpy()
        constant = graph.constant(value.T if transpose else value)
        return graph.op("Cast", constant, to=TensorProto.DOUBLE)

    x = graph.op("Mul", graph.op("Sub", x, stored("mean")), stored("scale"))
    for linear, norm in branch.names:
        x = graph.op("MatMul", x, stored(f"{linear}.weight", transpose=True))
        x = graph.op("Add", x, stored(f"{linear}.bias"))
        gain, offset = _folded(branch, norm)
        x = graph.op("Add", graph.op("Mul", x, graph.constant(gain)), graph.constant(offset))
        x = _activated(graph, x, branch)
    x = graph.op("MatMul", x, stored("out.weight", transpose=True))
    x = graph.op("Add", x, stored("out.bias"))
    squares = graph.op("ReduceSum", graph.op("Mul", x, x), graph.constant(np.array([1])))
    norm_of = graph.op("Sqrt", squares)
    long = graph.op("Greater", norm_of, graph.constant(np.array(_SHORTEST)))
    return graph.op("Div", x, graph.op("Where", long, norm_of, graph.constant(np.array(math.inf))))


def _folded(branch: Branch, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A batch normalisation as a factor and an offset, float64."""
    norm = branch.get_submodule(name)
    weight, bias, mean, variance = (
        norm.state_dict()[part].detach().cpu().numpy().astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = weight / np.sqrt(variance + norm.eps)
    return gain, bias - mean * gain


def _activated(graph: Graph, x: str, branch: Branch) -> str:
    """The activation in float64, which onnxruntime's own ELU and error function lack."""
    from anymodal.projection.translation import ACTIVATIONS

    name = next((n for n, function in ACTIVATIONS.items() if function is branch.activation), None)
    zero, one = graph.constant(np.array(0.0)), graph.constant(np.array(1.0))
    if name == "relu":
        return graph.op("Relu", x)
    if name == "elu":
        below = graph.op("Sub", graph.op("Exp", graph.op("Min", x, zero)), one)
        return graph.op("Where", graph.op("Greater", x, zero), x, below)
    if name == "gelu":
        scaled = graph.op("Mul", x, graph.constant(np.array(math.sqrt(0.5))))
        single = graph.op("Erf", graph.op("Cast", scaled, to=TensorProto.FLOAT))
        error = graph.op("Cast", single, to=TensorProto.DOUBLE)
        half = graph.op("Mul", x, graph.constant(np.array(0.5)))
        return graph.op("Mul", half, graph.op("Add", error, one))
    raise AnymodalError("a translation with an activation of its own cannot be exported")


def _novelty(graph: Graph, x: str, novelty: Novelty | None) -> None:
    """As `Judge.novelties`: zeros where there is no threshold."""
    if novelty is None:
        none = graph.op("ReduceSum", x, graph.constant(np.array([1])), keepdims=0)
        graph.op("Mul", none, graph.constant(np.array(0.0)), output="novelty")
        return

    def stored(value: np.ndarray) -> str:
        return graph.op("Cast", graph.constant(value), to=TensorProto.DOUBLE)

    standard = graph.op("Div", graph.op("Sub", x, stored(novelty.mean)), stored(novelty.scale))
    inside = graph.op("MatMul", standard, stored(novelty.components.T))
    lengths = [
        graph.op("ReduceSum", graph.op("Mul", y, y), graph.constant(np.array([1])), keepdims=0)
        for y in (standard, inside)
    ]
    outside = graph.op("Max", graph.op("Sub", *lengths), graph.constant(np.array(0.0)))
    least = max(novelty.threshold, np.finfo(np.float64).tiny)
    residual = graph.op("Sqrt", outside)
    graph.op("Div", residual, graph.constant(np.array(least)), output="novelty")


def _tensor(name: str, kind: int, columns: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["n", columns])
