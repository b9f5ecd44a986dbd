"""PyTorch networks as encoders: device, precision, exact arithmetic.

A family subclasses `TorchEncoder` and gives `_windows` (an item → an array or several) and
`_forward` (a stack of those → embeddings); one with a spectral front end computes it in `_front`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod

import numpy as np
import torch

from anymodal.core.errors import AnymodalError
from anymodal.encoders.batched import BatchedEncoder
from anymodal.encoders.precision import PRECISIONS, Precision
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.weights.tensors import Tensors, check_shapes

_WINDOWS_PER_PASS = {"cpu": 4}
_WINDOWS_PER_PASS_ELSEWHERE = 64
"""On a CPU more windows than fit its caches make a pass slower, not faster."""


class TorchEncoder(BatchedEncoder):
    """A frozen PyTorch network, its weights loaded, as an `anymodal.encoders.base.Encoder` on a
    device: `auto`, `cpu`, `cuda`, `cuda:<n>` or `mps`."""

    def __init__(
        self, info: EncoderInfo, network: torch.nn.Module, device: str, preprocessing: str
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.device = resolve_device(device)
        windows = _WINDOWS_PER_PASS.get(self.device.type, _WINDOWS_PER_PASS_ELSEWHERE)
        super().__init__(info, self._tensors(), preprocessing, windows)
        self.network.to(self.device)

    def use_precision(self, precision: Precision) -> None:
        """Compute convolutions and products in `precision` from now on; `version` changes with it.

        `_front` and saved weights stay float32. In a shorter type a vector may change in its last
        bits with its batch. Raises `AnymodalError` where the device has no such type.
        """
        if precision not in PRECISIONS:
            raise AnymodalError(f"no precision {precision!r}; known: {', '.join(PRECISIONS)}")
        if precision != "float32" and not _computes_in(self.device, getattr(torch, precision)):
            raise AnymodalError(
                f"{self.name} cannot compute in {precision} on {self.device}; use float32"
            )
        self.precision = precision

    def _front(self, windows: torch.Tensor) -> torch.Tensor:
        """What the network sees of a stack of windows that is on the device already; computed in
        float32 whatever the precision, for a spectrum's range is wider than float16's."""
        return windows

    @abstractmethod
    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, dim) of what `_front` gave."""

    def _tensors(self) -> Tensors:
        return tensors_of(self.network)

    def _run(self, windows: np.ndarray) -> np.ndarray:
        # TF32 and cuDNN's choice by timing would make a vector depend on device and batch
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        short = torch.bfloat16 if self.precision == "float32" else getattr(torch, self.precision)
        with exact, torch.inference_mode():
            seen = self._front(torch.from_numpy(windows).to(self.device))
            with torch.autocast(self.device.type, short, enabled=self.precision != "float32"):
                return self._forward(seen).float().cpu().numpy()


def _computes_in(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a convolution runs in `dtype`; autocast itself only warns where it does not."""
    image = torch.ones(1, 1, 3, 3, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.autocast(device.type, dtype):
                return torch.nn.functional.conv2d(image, image).dtype == dtype
        except RuntimeError:
            return False


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
    check_shapes(tensors, {n: tensor.shape for n, tensor in tensors_of(network).items()}, encoder)
    state = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in tensors.items()}
    network.load_state_dict(state, strict=False)
