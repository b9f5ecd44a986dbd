"""Reads the HDF5 files of weights that Keras 1 and 2 wrote, without Keras.

The root attribute `layer_names` lists the layers in order; each is a group whose attribute
`weight_names` lists its tensors. A whole model saved as .h5 has the same under `model_weights`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from itertools import count, takewhile
from pathlib import Path

import h5py
import numpy as np

from anymodal.core.errors import AnymodalError

Layers = dict[str, dict[str, np.ndarray]]
"""Layer → its tensors by the last part of their name, such as `kernel`, in the file's order."""
_HDF5, _GZIP = b"\x89HDF\r\n\x1a\n", b"\x1f\x8b"
_BROKEN = (
    OSError, EOFError, zlib.error, KeyError, AttributeError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What gzip and h5py raise on files that are damaged or laid out otherwise."""


def is_keras_file(path: Path, *signatures: bytes) -> bool:
    """Whether a file begins as HDF5 or gzip does; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(signatures or (_HDF5, _GZIP))
    except OSError:
        return False  # whoever reads it next says why


def read_layers(path: Path) -> Layers:
    """Layers that have tensors, of an .h5 or .h5.gz file.

    Raises `AnymodalError` where it is cut short, or not a file of weights of that layout.
    """
    try:
        source: Path | io.BytesIO = path
        if is_keras_file(path, _GZIP):
            source = io.BytesIO(gzip.decompress(path.read_bytes()))
        with h5py.File(source, "r") as file:
            root = file if _names(file, "layer_names") else file["model_weights"]
            return {
                name: {
                    tensor.rpartition("/")[2].partition(":")[0]: np.asarray(root[name][tensor][()])
                    for tensor in tensors
                }
                for name in _names(root, "layer_names")
                if (tensors := _names(root[name], "weight_names"))
            }
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise AnymodalError(
            f"{path} is not a whole .h5 file of weights as Keras 2 wrote them ({reason}): "
            "download it again"
        ) from error


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; one too long for an HDF5 attribute is kept in numbered pieces."""
    values = list(group.attrs.get(attribute, ()))
    pieces = takewhile(group.attrs.__contains__, (f"{attribute}{n}" for n in count()))
    values += [name for piece in pieces for name in group.attrs[piece]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in values]
