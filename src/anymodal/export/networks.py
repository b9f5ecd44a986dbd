"""A PyTorch encoder as an ONNX graph, and that graph joined with a head."""

from __future__ import annotations

import copy
import logging

import numpy as np
import onnx
import torch
from onnx import compose

from anymodal.encoders.base import Encoder
from anymodal.encoders.torch_encoder import TorchEncoder
from anymodal.errors import AnymodalError
from anymodal.onnx.graph import IR_VERSION, OPSET
from anymodal.onnx.head import INPUT
from anymodal.silence import silenced


def obstacle(encoder: Encoder) -> str | None:
    """Why an encoder's network cannot be exported; None where it can."""
    if not isinstance(encoder, TorchEncoder):
        return f"{encoder.name} is not a PyTorch network"
    if encoder.precision != "float32":
        return f"{encoder.name} computes in {encoder.precision}, an export in float32"
    return None


def network(encoder: TorchEncoder, seen: np.ndarray) -> onnx.ModelProto:
    """The network with its analysis of sound: what `prepare` gives of an item → `embedding`.

    Parameters
    ----------
    encoder: it stays as it is; the export happens on the CPU.
    seen: two or more examples of what the network sees, stacked.

    Raises `AnymodalError` where PyTorch cannot export it.
    """
    chain = _Chain(encoder).eval()
    example = torch.from_numpy(seen)
    try:
        # its remarks are on packages that it could have used
        with silenced("torch.onnx", logging.ERROR):
            program = torch.onnx.export(
                chain,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                opset_version=OPSET,
                input_names=[encoder.modality],
                output_names=[INPUT],
                verbose=False,
            )
    # PyTorch's exporter raises whatever its many parts do
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise AnymodalError(
            f"PyTorch cannot export the network of {encoder.name} ({reason}); "
            "export the heads alone (--heads-only)"
        ) from error
    if program is None:
        raise AnymodalError(f"PyTorch exported nothing of {encoder.name}; export the heads alone")
    model = program.model_proto
    # where PyTorch found each operator, the paths of its files included, is nobody's business
    bare(model)
    model.ir_version = IR_VERSION
    return model


def joined(encoder: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """An encoder's model and a head as one."""
    model = compose.merge_models(encoder, head, io_map=[(INPUT, INPUT)])
    model.producer_name = "anymodal"
    model.graph.name = head.graph.name.removesuffix("_head")
    return model


def bare(model: onnx.ModelProto) -> None:
    """Take away what is only for finding errors in the exporter."""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


class _Chain(torch.nn.Module):
    """All that an encoder computes on its device, as one module."""

    def __init__(self, encoder: TorchEncoder) -> None:
        super().__init__()
        own = copy.deepcopy(encoder)
        own.device = torch.device("cpu")
        # every module that the encoder holds, so that the exporter knows the weights for weights
        self.parts = torch.nn.ModuleList(
            part.cpu() for part in vars(own).values() if isinstance(part, torch.nn.Module)
        )
        self.own = own

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.own._forward(self.own._front(seen)).float()
