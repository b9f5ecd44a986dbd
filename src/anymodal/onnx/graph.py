"""Building an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

OPSET = 18
"""Version of the operators of ONNX itself."""
IR_VERSION = 10
"""What onnxruntime 1.18 reads, and PyTorch writes."""


class Graph:
    """Nodes and constants, in the order in which they are added.

    Names that are not given are made up, all beginning with `prefix`: graphs that are to be joined
    need different ones.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        """The name of a constant tensor."""
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add an operator; the name of its output."""
        output = output or f"{self.prefix}/{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def model(
        self,
        name: str,
        inputs: Iterable[onnx.ValueInfoProto],
        outputs: Iterable[onnx.ValueInfoProto],
        opsets: dict[str, int],
    ) -> onnx.ModelProto:
        """The whole as a checked model."""
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), self.constants)
        model = helper.make_model(
            graph,
            producer_name="anymodal",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid(domain, v) for domain, v in opsets.items()],
        )
        onnx.checker.check_model(model)
        return model


def marked(model: onnx.ModelProto, told: Mapping[str, str]) -> onnx.ModelProto:
    """`model` with properties that its reader can ask for, replacing those it has."""
    del model.metadata_props[:]
    helper.set_model_props(model, dict(told))
    onnx.checker.check_model(model)
    return model
