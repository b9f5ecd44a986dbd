"""What all encoders that are PyTorch networks share: batching, identity, saving.

A family subclasses `TorchEncoder` and gives `_windows` (an item → what the network sees, one or
several) and `_forward` (a stack of those → embeddings).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from anymodal.encoders import EncoderInfo
from anymodal.encoders.base import Modality
from anymodal.encoders.weights import Tensors, fingerprint, write_weights
from anymodal.errors import AnymodalError

_WINDOWS_PER_PASS = {"cpu": 4}
_WINDOWS_PER_PASS_ELSEWHERE = 64
"""Bound the memory of a forward pass, whatever the batch holds. On a CPU more windows than fit its
caches make a pass slower, not faster."""


class TorchEncoder(ABC):
    """A frozen PyTorch network as an `anymodal.encoders.base.Encoder`.

    Parameters
    ----------
    info: the registry's entry.
    network: module whose weights are loaded.
    device: `auto`, `cpu`, `cuda`, `cuda:<n>` or `mps`.
    preprocessing: what is done to an item before the network, and which output is the embedding;
        any change of these must change the text, for it is part of `version`.
    """

    name: str
    modality: Modality
    dim: int
    sample_rate: int | None
    image_size: int | None

    def __init__(
        self, info: EncoderInfo, network: torch.nn.Module, device: str, preprocessing: str
    ) -> None:
        self.name = info.name
        self.modality = info.modality
        self.dim = info.dim
        self.sample_rate = info.sample_rate
        self.image_size = info.image_size
        self.device = resolve_device(device)
        self._pass = _WINDOWS_PER_PASS.get(self.device.type, _WINDOWS_PER_PASS_ELSEWHERE)
        identity = f"{preprocessing}\n{fingerprint(tensors_of(network))}"
        self._version = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.network = network.eval().requires_grad_(False).to(self.device)

    @property
    def version(self) -> str:
        """16 hex digits over weights and preprocessing; the same on every platform."""
        return self._version

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """Embed items (see `anymodal.encoders.base`) as float32 (len(batch), dim).

        Raises `AnymodalError` for an item of the wrong type, shape or content.
        """
        sums = np.zeros((len(batch), self.dim), dtype=np.float64)
        counts = np.zeros(len(batch), dtype=np.int64)
        windows: list[np.ndarray] = []
        rows: list[int] = []

        def flush() -> None:
            np.add.at(sums, rows, self._run(np.stack(windows)))
            np.add.at(counts, rows, 1)
            windows.clear()
            rows.clear()

        for row, item in enumerate(batch):
            try:
                for window in self._windows(item):
                    windows.append(window)
                    rows.append(row)
                    if len(windows) == self._pass:
                        flush()
            except AnymodalError as error:
                raise AnymodalError(f"{self.name}: item {row} {error}") from error
        if windows:
            flush()
        return (sums / counts[:, None]).astype(np.float32)

    def save_weights(self, path: str | Path) -> None:
        """Write the weights as safetensors, for `anymodal.encoders.get(name, weights=path)`."""
        write_weights(path, tensors_of(self.network), self.name, f"anymodal {self.name}")

    @abstractmethod
    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        """What the network sees of an item: arrays of one shape and dtype, at least one."""

    @abstractmethod
    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, dim) of a stack of windows that is on the device already."""

    def _run(self, windows: np.ndarray) -> np.ndarray:
        # TF32 and cuDNN's choice by timing would make a vector depend on device and batch
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            result = self._forward(torch.from_numpy(windows).to(self.device))
        return result.cpu().numpy()


def resolve_device(device: str) -> torch.device:
    """The torch device that a name stands for; `auto` is CUDA, else MPS, else CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise AnymodalError(f"no device {device!r}: use auto, cpu, cuda or mps") from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (resolved.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(resolved.type, False):
        raise AnymodalError(f"this machine has no device {device!r}: use auto or cpu")
    return resolved


def tensors_of(network: torch.nn.Module) -> Tensors:
    """Parameters and running statistics, without BatchNorm's counters of training steps."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def load_tensors(network: torch.nn.Module, tensors: Tensors, encoder: str) -> None:
    """Copy `tensors` into `network`; `AnymodalError` unless names and shapes are the network's."""
    expected = {name: tensor.shape for name, tensor in tensors_of(network).items()}
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != given:
        wrong = sorted(
            name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)
        )
        raise AnymodalError(
            f"weights do not fit {encoder}: {len(wrong)} tensors are missing, extra or of another "
            f"shape, first {wrong[0]}"
        )
    state = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in tensors.items()}
    network.load_state_dict(state, strict=False)
