"""One fingerprint of whatever a result was computed from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydantic import BaseModel


def fingerprint(*inputs: object) -> str:
    """SHA-256 of the inputs in their order, as 64 hex digits.

    Arrays count by dtype, shape and content, models by their JSON, lists and tuples by their items,
    everything else by its text; inputs of different types never share a fingerprint.
    """
    total = hashlib.sha256()
    for value in inputs:
        if isinstance(value, np.ndarray) and value.dtype != object:
            total.update(f"{value.dtype.str}{value.shape}".encode())
            total.update(np.ascontiguousarray(value).data)
        elif isinstance(value, np.ndarray | list | tuple):
            total.update(fingerprint(*value).encode())
        elif isinstance(value, BaseModel):
            total.update(value.model_dump_json().encode())
        else:
            total.update(repr(value).encode())
        total.update(b"\0" + type(value).__name__.encode() + b"\0")
    return total.hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
