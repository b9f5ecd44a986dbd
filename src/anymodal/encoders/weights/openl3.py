"""Weights of OpenL3: the publisher's HDF5 files and where they lie.

A file holds what Keras 2 writes with `save_weights`: the root attribute `layer_names` lists the
layers in order; each is a group whose attribute `weight_names` lists its tensors. A whole model
saved as .h5 has the same under `model_weights`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import h5py
import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.encoders.openl3_network import CHANNELS
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.weights import locations
from anymodal.encoders.weights.files import locate

_HDF5 = b"\x89HDF\r\n\x1a\n"
_GZIP = b"\x1f\x8b"
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CONVOLUTION = {"kernel": "weight", "bias": "bias"}

_BROKEN = (
    OSError, EOFError, zlib.error, KeyError, AttributeError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What gzip and h5py raise on files that are damaged or laid out otherwise."""

KerasLayer = dict[str, np.ndarray]
"""Tensors of one Keras layer by the last part of their name, such as `kernel`."""


def find(info: EncoderInfo, path: Path | None) -> locations.Tensors:
    """Tensors of `OpenL3Network` for an encoder of this family.

    Sought in this order: `path` (safetensors, .h5 or .h5.gz, told apart by their content);
    `<encoder>.safetensors` in the folder that `ANYMODAL_WEIGHTS_DIR` names; the publisher's file
    there; the installed package `openl3`, which is not imported; the cache; the download that the
    package's setup makes. To convert a file takes no longer than to read it, so no converted one
    is kept.

    Raises
    ------
    AnymodalError: there are none, or the file is broken or of another network.
    """
    if path is not None:
        if _begins_with(path, _HDF5, _GZIP):
            return read(path)
        return locations.read_weights(path, info.name)
    tensors = locations.given_weights(info.name, None)
    if tensors is not None:
        return tensors
    (file,) = info.files
    return read(locate(info.name, file))


def read(path: Path) -> locations.Tensors:
    """Read a file of the publisher (.h5, or .h5.gz) as tensors of `OpenL3Network`."""
    layers = keras_layers(path)
    try:
        return convert(layers)
    except AnymodalError as error:
        raise AnymodalError(f"{path} holds other weights than OpenL3's: {error}") from error


def keras_layers(path: Path) -> list[KerasLayer]:
    """Layers with weights of a Keras HDF5 file, in its order; a gzipped file is unpacked."""
    try:
        source: Path | io.BytesIO = path
        if _begins_with(path, _GZIP):
            source = io.BytesIO(gzip.decompress(path.read_bytes()))
        with h5py.File(source, "r") as file:
            root = file if "layer_names" in file.attrs else file["model_weights"]
            layers = [_tensors(root[_text(name)]) for name in root.attrs["layer_names"]]
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise AnymodalError(
            f"{path} is not a whole Keras .h5 file of weights ({reason}): download it anew"
        ) from error
    return [layer for layer in layers if layer]


def convert(layers: list[KerasLayer]) -> locations.Tensors:
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
    tensors: locations.Tensors = {}
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


def _tensors(group: h5py.Group) -> KerasLayer:
    found = {}
    for name in group.attrs["weight_names"]:
        last = _text(name).rpartition("/")[2].partition(":")[0]
        found[last] = np.asarray(group[_text(name)][()])
    return found


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _begins_with(path: Path, *signatures: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(signatures)
    except OSError:
        return False  # whoever reads it next says why
