"""musicnn: music tagging networks of Pons and Serra ("musicnn: Pre-trained convolutional neural
networks for music audio tagging", ISMIR late-breaking demo, 2019), ported to PyTorch.

Input        one second at 16 kHz → log10(10000 · mel power + 1), 63 frames × 96 bands, in float32
             (the package rounds mel powers to float16: below 3e-4 of difference).
Embedding    the 1506 values pooled over time, maximum and mean of every layer's channels: over 17
             instruments better than the 200 values before the tags.
Weights      TensorFlow checkpoints in the package musicnn 0.1.0 (ISC licence).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.encoders.audio.mel import MelSpectrogram
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.torch_encoder import TorchEncoder, load_tensors
from anymodal.encoders.weights.packaged import packaged_weights
from anymodal.encoders.weights.tensors import Tensors
from anymodal.encoders.weights.tf_checkpoint import read_checkpoint
from anymodal.encoders.windows import audio_windows

SAMPLE_RATE = 16_000
EPSILON = 1e-3
"""Added to variances where the networks normalise."""
PREPROCESSING = (
    "musicnn 1: 16 kHz, 1 s windows, stft 512/256 centred zero-padded hann, 96 slaney mels of "
    "power, log10(1e4 x + 1); pooled"
)
_TEMPORAL = (128, 64, 32)
"""Frames that the temporal filters span."""
_CHECKPOINTS = {"musicnn_mtt": "MTT_musicnn", "musicnn_msd": "MSD_musicnn"}
_SHA256 = {
    "musicnn_mtt": "1ffc6a2e6242e7e00984d1d914d02966fc1bab25fe09742bc7df5e1c765796ba",
    "musicnn_msd": "210fd5a9baed0edeae6260fb83421c1711770031cccc385d7206f2b069376460",
}


class MusiCNN(nn.Module):
    """The network; input (n, frames, 96) log-mel spectra, any number of frames."""

    def __init__(self, tags: int = 50) -> None:
        super().__init__()
        self.norm_input = nn.BatchNorm2d(1, eps=EPSILON)
        self.timbral = nn.ModuleList([_branch(204, (7, 38)), _branch(204, (7, 67))])
        self.temporal = nn.ModuleList([_branch(51, (length, 1)) for length in _TEMPORAL])
        self.middle = nn.ModuleList([_layer(561), _layer(64), _layer(64)])
        self.norm_pooled = nn.BatchNorm1d(1506, eps=EPSILON)
        self.dense = nn.Linear(1506, 200)
        self.norm_dense = nn.BatchNorm1d(200, eps=EPSILON)
        self.tags = nn.Linear(200, tags)

    def pooled(self, spectra: torch.Tensor) -> torch.Tensor:
        """Maximum and mean over time of all layers, interleaved per channel: (n, 1506)."""
        x = self.norm_input(spectra[:, None])
        wide = F.pad(x, (0, 0, 3, 3))
        parts = [branch(wide).amax(dim=3) for branch in self.timbral]
        for length, branch in zip(_TEMPORAL, self.temporal, strict=True):
            # TensorFlow's `same`: of an odd total padding the larger part comes last
            before = (length - 1) // 2
            padded = F.pad(x, (0, 0, before, length - 1 - before))
            parts.append(branch(padded).amax(dim=3))
        front = torch.cat(parts, dim=1)
        first = self.middle[0](front)
        second = self.middle[1](first) + first
        third = self.middle[2](second) + second
        layers = torch.cat([front, first, second, third], dim=1)
        return torch.stack([layers.amax(dim=2), layers.mean(dim=2)], dim=2).flatten(1)

    def penultimate(self, pooled: torch.Tensor) -> torch.Tensor:
        """The package's `penultimate` of `pooled`: (n, 200)."""
        return self.norm_dense(F.relu(self.dense(self.norm_pooled(pooled))))


class MusicnnEncoder(TorchEncoder):
    """One second of audio → 1506 values. `get("musicnn_mtt")` builds it."""

    def __init__(self, info: EncoderInfo, network: MusiCNN, device: str) -> None:
        super().__init__(info, network, device, PREPROCESSING)
        self._musicnn = network
        self._mel = MelSpectrogram(SAMPLE_RATE, 512, 256, 96).to(self.device)
        self._samples = round(WINDOW_SECONDS * SAMPLE_RATE)

    def log_mel(self, audio: torch.Tensor) -> torch.Tensor:
        """Audio (n, samples) → what the network sees (n, 1 + samples // 256, 96)."""
        return torch.log10(1e4 * self._mel(audio) + 1.0)

    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        return audio_windows(item, self._samples)

    def _front(self, windows: torch.Tensor) -> torch.Tensor:
        return self.log_mel(windows)

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self._musicnn.pooled(windows)


def load(info: EncoderInfo, device: str, path: Path | None) -> MusicnnEncoder:
    """Build an encoder of this family (see `anymodal.encoders.get`)."""
    folder = _CHECKPOINTS[info.name]
    # the published checkpoints have an empty prefix
    members = (f"{folder}/.index", f"{folder}/.data-00000-of-00001")
    tensors = packaged_weights(info, path, members, from_checkpoint, _SHA256[info.name])
    network = MusiCNN()
    load_tensors(network, tensors, info.name)
    return MusicnnEncoder(info, network, device)


def from_checkpoint(index: bytes, data: bytes) -> Tensors:
    """Tensors of `MusiCNN` from a published checkpoint's two files.

    Layers were numbered in the order in which the graph was built: convolutions and normalisations
    of the branches, then of the middle, then the dense layers.
    """
    try:
        return _converted(read_checkpoint(index, data))
    except KeyError as error:
        raise AnymodalError(f"is not the checkpoint of this network: lacks {error}") from error


def _converted(variables: dict[str, np.ndarray]) -> Tensors:
    convolutions = [f"{kind}.{i}.0" for kind, n in _GROUPS for i in range(n)]
    norms = ["norm_input", *(f"{kind}.{i}.2" for kind, n in _GROUPS for i in range(n))]
    norms += ["norm_pooled", "norm_dense"]
    tensors: Tensors = {}
    for number, name in enumerate(convolutions):
        source = "conv2d" + (f"_{number}" if number else "")
        kernel = variables[f"{source}/kernel"].transpose(3, 2, 0, 1)  # of time, width, in, out
        if name.startswith("middle"):
            # these span all channels as width, which makes them convolutions in time
            kernel = kernel[:, 0].transpose(0, 2, 1)
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = kernel, variables[f"{source}/bias"]
    for number, name in enumerate(norms):
        source = "batch_normalization" + (f"_{number}" if number else "")
        for ours, theirs in _NORM_FIELDS.items():
            tensors[f"{name}.{ours}"] = variables[f"{source}/{theirs}"]
    for source, name in (("dense", "dense"), ("dense_1", "tags")):
        tensors[f"{name}.weight"] = variables[f"{source}/kernel"].T
        tensors[f"{name}.bias"] = variables[f"{source}/bias"]
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


_GROUPS = (("timbral", 2), ("temporal", 3), ("middle", 3))
_NORM_FIELDS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def _branch(filters: int, kernel: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, filters, kernel), nn.ReLU(), nn.BatchNorm2d(filters, eps=EPSILON)
    )


def _layer(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(channels, 64, 7, padding=3), nn.ReLU(), nn.BatchNorm1d(64, eps=EPSILON)
    )
