"""Weights as safetensors files that carry the encoder's name, their origin and their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import atomic_path
from anymodal.encoders.weights.locations import weights_dir

Tensors = dict[str, np.ndarray]
"""Parameters and running statistics of a network by name; float32, in PyTorch's layout."""


def fingerprint(tensors: Tensors) -> str:
    """SHA-256 (hex) over names, shapes and little-endian float32 bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name], dtype="<f4")
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def write_weights(path: str | Path, tensors: Tensors, encoder: str, origin: str) -> None:
    """Write `tensors` as a safetensors file that `read_weights` can verify."""
    metadata = {"encoder": encoder, "origin": origin, "sha256": fingerprint(tensors)}
    plain = {name: np.ascontiguousarray(tensor, "<f4") for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def read_weights(path: str | Path, encoder: str) -> Tensors:
    """Read the weights of `encoder` (its registry name); those without our metadata as they are.

    Raises `AnymodalError`: missing, not safetensors, altered, or the weights of another encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise AnymodalError(f"no weights of {encoder} at {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise AnymodalError(f"{path} is not a whole safetensors file ({error})") from error
    if metadata.get("encoder", encoder) != encoder:
        raise AnymodalError(f"{path} holds the weights of {metadata['encoder']}, not of {encoder}")
    if "sha256" in metadata and metadata["sha256"] != fingerprint(tensors):
        raise AnymodalError(f"{path} is corrupt: its tensors do not match their recorded SHA-256")
    return tensors


def given_weights(encoder: str, weights: str | Path | None) -> Tensors | None:
    """Weights that the user named, by path or by `ANYMODAL_WEIGHTS_DIR`; None if none are."""
    if weights is not None:
        return read_weights(weights, encoder)
    folder = weights_dir()
    if folder is not None and (folder / f"{encoder}.safetensors").is_file():
        return read_weights(folder / f"{encoder}.safetensors", encoder)
    return None


def check_shapes(tensors: Tensors, expected: Mapping[str, tuple[int, ...]], encoder: str) -> None:
    """Raise `AnymodalError` unless names and shapes are those of the encoder's network."""
    given = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = sorted(n for n in expected.keys() | given.keys() if expected.get(n) != given.get(n))
    if wrong:
        raise AnymodalError(
            f"weights do not fit {encoder}: {len(wrong)} tensors are missing, extra or of another "
            f"shape, first {wrong[0]}"
        )
