"""Reads the HDF5 files of weights that Keras 1 and 2 wrote, without Keras.

The root attribute `layer_names` lists the layers in order; each is a group whose attribute
`weight_names` lists its tensors. A whole model saved as .h5 has the same under `model_weights`.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from anymodal.core.errors import AnymodalError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BROKEN = (OSError, EOFError, KeyError, AttributeError, RuntimeError, TypeError, ValueError)
"""What h5py raises on files that are damaged or laid out otherwise."""


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False  # whoever reads it next says why


def read_layers(path: Path) -> dict[str, list[np.ndarray]]:
    """Layer name → its tensors in the file's order, for the layers that have any.

    Raises `AnymodalError` where the file is cut short, or no file of weights of that layout.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file if _names(file, "layer_names") else file["model_weights"]
            layers = {
                name: [np.asarray(root[name][tensor][()]) for tensor in tensors]
                for name in _names(root, "layer_names")
                if (tensors := _names(root[name], "weight_names"))
            }
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise AnymodalError(
            f"{path} is not a whole .h5 file of weights as Keras 2 wrote them ({reason}): "
            "download it anew"
        ) from error
    return layers


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; one too long for an HDF5 attribute is kept in numbered pieces."""
    if attribute in group.attrs:
        values = list(group.attrs[attribute])
    else:
        values, piece = [], 0
        while f"{attribute}{piece}" in group.attrs:
            values += list(group.attrs[f"{attribute}{piece}"])
            piece += 1
    return [name.decode() if isinstance(name, bytes) else str(name) for name in values]
