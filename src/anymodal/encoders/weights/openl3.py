"""Weights of OpenL3 from the publisher's HDF5 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.encoders.openl3_network import CHANNELS
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.weights.files import locate
from anymodal.encoders.weights.keras_h5 import is_keras_file, read_layers
from anymodal.encoders.weights.tensors import Tensors, given_weights

_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CONVOLUTION = {"kernel": "weight", "bias": "bias"}


def find(info: EncoderInfo, path: Path | None) -> Tensors:
    """Tensors of `OpenL3Network` for an encoder of this family.

    Taken from `path` (safetensors, .h5 or .h5.gz), else `<ANYMODAL_WEIGHTS_DIR>/
    <encoder>.safetensors`, else the publisher's file (`files.locate`). Converting a file takes no
    longer than reading it, so converted ones are not kept.

    Raises
    ------
    AnymodalError: there are none, or the file is broken or of another network.
    """
    if path is None or not is_keras_file(path):
        tensors = given_weights(info.name, path)
        if tensors is not None:
            return tensors
    return read(path or locate(info.name, info.files[0]))


def read(path: Path) -> Tensors:
    """Read a file of the publisher (.h5, or .h5.gz) as tensors of `OpenL3Network`."""
    layers = list(read_layers(path).values())
    try:
        return convert(layers)
    except AnymodalError as error:
        raise AnymodalError(f"{path} holds other weights than OpenL3's: {error}") from error


def convert(layers: list[dict[str, np.ndarray]]) -> Tensors:
    """Keras layers in the order of the network → tensors of `OpenL3Network`.

    Layers that are neither convolutions nor normalisations (the spectrogram layer of old files) are
    passed over. Shapes are checked when the tensors are loaded.
    """
    kinds = {frozenset(_NORM): _NORM, frozenset(_CONVOLUTION): _CONVOLUTION}
    known = [layer for layer in layers if frozenset(layer) in kinds]
    names = ["norm_input"]
    for i in range(len(CHANNELS)):
        names += [f"layers.{i}.conv", f"layers.{i}.norm"]
    names.append("embedding")
    if len(known) != len(names):
        raise AnymodalError(f"it has {len(known)} layers with weights, not {len(names)}")
    tensors: Tensors = {}
    for name, layer in zip(names, known, strict=True):
        kind = kinds[frozenset(layer)]
        if (kind is _NORM) != ("norm" in name):
            raise AnymodalError(f"where {name} should be, it has {', '.join(sorted(layer))}")
        for theirs, ours in kind.items():
            value = layer[theirs]
            if theirs == "kernel":
                if value.ndim != 4:
                    raise AnymodalError(f"the kernel of {name} has the shape {value.shape}")
                value = value.transpose(3, 2, 0, 1)  # height, width, in, out
            tensors[f"{name}.{ours}"] = np.ascontiguousarray(value, np.float32)
    return tensors
