"""The head, from an encoder's embedding to class probabilities, as an ONNX graph.

embedding (n, dim) → projection in float64 → joint, float32 → forest → votes → calibration →
probabilities; embedding → novelty. Float32 weights are stored so, and cast in the graph.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from anymodal.classifier.open_set import Novelty, OpenSetCalibrator
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.export.forest import ML_OPSET, tree_ensemble
from anymodal.projection.base import Projection

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from anymodal.projection.pca import PCAProjection
    from anymodal.projection.translation import Branch, Translation

OPSET = 18
IR_VERSION = 10
"""What onnxruntime 1.18 reads, and PyTorch writes."""
INPUT = "embedding"
_SHORTEST = 1e-12
"""As in `anymodal.projection.translation.unit_rows`."""


class Graph:
    """An ONNX graph under construction; generated names begin with `head/`, unlike encoders'."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def op(
        self, kind: str, *inputs: str | float | np.ndarray, output: str = "", **attributes: Any
    ) -> str:
        """Add an operator and return the name of its output. Inputs are names, or numbers and
        arrays, which become float64 constants."""
        names = [
            i if isinstance(i, str) else self._constant(np.array(i, order="C")) for i in inputs
        ]
        output = output or f"head/{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def _constant(self, value: np.ndarray) -> str:
        name = f"head/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return self.op("Cast", name, to=TensorProto.DOUBLE) if value.dtype == np.float32 else name

    def model(
        self, name: str, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]
    ) -> ModelProto:
        """Return the graph as a model."""
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.constants)
        return helper.make_model(
            graph, producer_name="anymodal", ir_version=IR_VERSION, opset_imports=opsets
        )


def tensor(name: str, kind: int, columns: int) -> ValueInfoProto:
    """Describe an input or output (n, columns)."""
    return helper.make_tensor_value_info(name, kind, ["n", columns])


def head(
    projection: Projection,
    forest: RandomForestClassifier,
    modality: Modality,
    calibrator: OpenSetCalibrator,
) -> ModelProto:
    """Return the head of one modality: `embedding`, float32 (n, dim) → `probabilities` and `votes`,
    float64 (n, classes), `novelty`, float64 (n,), and `joint`, float32 (n, dim of the space)."""
    graph = Graph()
    wide = graph.op("Cast", INPUT, to=TensorProto.DOUBLE)
    if projection.kind == "translation":
        branch = cast("Translation", projection).branches[modality]
        projected = _translated(graph, wide, cast("Branch", branch))
    elif projection.kind == "pca":
        axes = cast("PCAProjection", projection).axes[modality]
        projected = graph.op("MatMul", graph.op("Sub", wide, axes.mean), axes.components.T)
    else:
        raise AnymodalError(f"a projection of kind {projection.kind!r} cannot be exported")
    joint = graph.op("Cast", projected, to=TensorProto.FLOAT, output="joint")
    graph.nodes.append(tree_ensemble(forest, joint, "head/counted"))
    counted = graph.op("Cast", "head/counted", to=TensorProto.DOUBLE)
    votes = graph.op("Div", counted, float(len(forest.estimators_)), output="votes")
    logs = graph.op("Log", graph.op("Max", votes, calibrator.floor))
    tempered = graph.op("Div", logs, calibrator.temperatures[modality])
    graph.op("Softmax", tempered, axis=1, output="probabilities")
    _novelty(graph, wide, calibrator.novelty.get(modality))
    classes = len(forest.classes_)
    return graph.model(
        f"{modality}_head",
        [tensor(INPUT, TensorProto.FLOAT, projection.dims[modality])],
        [
            tensor("probabilities", TensorProto.DOUBLE, classes),
            tensor("votes", TensorProto.DOUBLE, classes),
            helper.make_tensor_value_info("novelty", TensorProto.DOUBLE, ["n"]),
            tensor("joint", TensorProto.FLOAT, projection.dim),
        ],
    )


def _translated(graph: Graph, x: str, branch: Branch) -> str:
    tensors = {name: value.detach().cpu().numpy() for name, value in branch.state_dict().items()}

    def affine(x: str, layer: str) -> str:
        x = graph.op("MatMul", x, tensors[f"{layer}.weight"].T)
        return graph.op("Add", x, tensors[f"{layer}.bias"])

    x = graph.op("Mul", graph.op("Sub", x, tensors["mean"]), tensors["scale"])
    for linear, norm in branch.names:
        x = affine(x, linear)
        # the batch normalisation as a factor and an offset, float64
        weight, bias, mean, variance = (
            tensors[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = weight / np.sqrt(variance + branch.get_submodule(norm).eps)
        x = graph.op("Add", graph.op("Mul", x, gain), bias - mean * gain)
        x = _activated(graph, x, branch)
    x = affine(x, "out")
    length = graph.op("Sqrt", _sum(graph, graph.op("Mul", x, x), keepdims=1))
    is_long = graph.op("Greater", length, _SHORTEST)
    return graph.op("Div", x, graph.op("Where", is_long, length, math.inf))


def _activated(graph: Graph, x: str, branch: Branch) -> str:
    """The activation in float64, which onnxruntime's own ELU and error function lack."""
    from anymodal.projection.translation import ACTIVATIONS

    name = next((n for n, function in ACTIVATIONS.items() if function is branch.activation), None)
    if name == "relu":
        return graph.op("Relu", x)
    if name == "elu":
        below = graph.op("Sub", graph.op("Exp", graph.op("Min", x, 0.0)), 1.0)
        return graph.op("Where", graph.op("Greater", x, 0.0), x, below)
    if name == "gelu":
        scaled = graph.op("Mul", x, math.sqrt(0.5))
        single = graph.op("Erf", graph.op("Cast", scaled, to=TensorProto.FLOAT))
        error = graph.op("Cast", single, to=TensorProto.DOUBLE)
        return graph.op("Mul", graph.op("Mul", x, 0.5), graph.op("Add", error, 1.0))
    raise AnymodalError("a translation with a custom activation cannot be exported")


def _novelty(graph: Graph, x: str, novelty: Novelty | None) -> None:
    """As `OpenSetCalibrator.novelties`: zeros where there is no threshold."""
    if novelty is None:
        graph.op("Mul", _sum(graph, x), 0.0, output="novelty")
        return
    standard = graph.op("Div", graph.op("Sub", x, novelty.mean), novelty.scale)
    inside = graph.op("MatMul", standard, novelty.components.T)
    lengths = [_sum(graph, graph.op("Mul", y, y)) for y in (standard, inside)]
    residual = graph.op("Sqrt", graph.op("Max", graph.op("Sub", *lengths), 0.0))
    graph.op("Div", residual, novelty.divisor, output="novelty")


def _sum(graph: Graph, x: str, keepdims: int = 0) -> str:
    return graph.op("ReduceSum", x, np.array([1]), keepdims=keepdims)
