"""A PyTorch encoder as an ONNX graph, and that graph joined with a head."""

from __future__ import annotations

import copy
import logging

import numpy as np
import onnx
import torch
from onnx import compose

from anymodal.core.errors import AnymodalError
from anymodal.core.quiet import quiet
from anymodal.encoders.base import Encoder
from anymodal.encoders.torch_encoder import TorchEncoder
from anymodal.export.head import INPUT, IR_VERSION, OPSET


def obstacle(encoder: Encoder) -> str | None:
    """Return why an encoder's network cannot be exported; None where it can."""
    if not isinstance(encoder, TorchEncoder):
        return f"{encoder.name} is not a PyTorch network"
    if encoder.precision != "float32":
        return f"{encoder.name} computes in {encoder.precision}, an export in float32"
    return None


def network(encoder: TorchEncoder, prepared: np.ndarray) -> onnx.ModelProto:
    """Export a network with its analysis of audio: prepared items → `embedding`.

    `prepared` are two or more examples. Raises `AnymodalError` where PyTorch fails.
    """
    try:
        # its remarks are on packages that it could have used
        with quiet("torch.onnx", logging.ERROR):
            program = torch.onnx.export(
                _Chain(encoder).eval(),
                (torch.from_numpy(prepared),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                opset_version=OPSET,
                input_names=[encoder.modality],
                output_names=[INPUT],
                verbose=False,
            )
        assert program is not None
    # PyTorch's exporter raises whatever its many parts do
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise AnymodalError(
            f"PyTorch cannot export the network of {encoder.name} ({reason}); use --heads-only"
        ) from error
    model = program.model_proto
    _remove_traces(model.graph)
    model.ir_version = IR_VERSION
    return model


def joined(encoder: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """Return an encoder's model and a head as one."""
    model = compose.merge_models(encoder, head, io_map=[(INPUT, INPUT)])
    model.producer_name, model.graph.name = "anymodal", head.graph.name.removesuffix("_head")
    return model


def _remove_traces(graph: onnx.GraphProto) -> None:
    """Remove where PyTorch found each operator: it names files of this machine."""
    del graph.value_info[:]
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


class _Chain(torch.nn.Module):
    """All that an encoder computes on its device, as one module."""

    def __init__(self, encoder: TorchEncoder) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.encoder.device = torch.device("cpu")
        # every module that the encoder holds, so that the exporter knows their weights as such
        self.parts = torch.nn.ModuleList(
            part.cpu() for part in vars(self.encoder).values() if isinstance(part, torch.nn.Module)
        )

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        return self.encoder._forward(self.encoder._front(prepared)).float()
