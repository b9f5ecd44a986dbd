"""musicnn's `vgg`: the baseline of Pons and Serra ("musicnn: Pre-trained convolutional neural
networks for music audio tagging", ISMIR late-breaking demo, 2019), ported to PyTorch.

Input        one second at 16 kHz → log10(10000 · mel power + 1), 63 frames × 96 bands, repeated to
             the 187 frames (3 s) that the network takes.
Embedding    maximum and mean of the 128 channels of all five blocks, over frames and bands: 1280
             values. They tell instruments apart better than the 256 values that the tags are made
             from. Measured: logistic regression (values standardised, C = 0.03) over the recordings
             of 17 instruments, up to three windows each, whose probabilities are averaged; macro
             F1, first with five folds split by group of recordings, then as the mean over five
             collections left out in turn, then from Philharmonia to the others:
                 pooled, the second repeated (chosen)           0.90  0.34  0.29
                 before the tags, the second repeated           0.71  0.31  0.29
                 pooled, the second as it is                    0.88  0.32  0.19
                 fourth block by band, the second as it is      0.88  0.37  0.23
                 musicnn_mtt                                    0.85  0.30  0.20
             Across collections none is good, and the order of the first two depends on the
             regularisation (C = 0.01: 0.33 against 0.38 left out, 0.28 against 0.26 from
             Philharmonia). Repeating the second makes the network four times as slow.
Weights      TensorFlow checkpoint in the package musicnn 0.1.0 (ISC licence), converted once.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from anymodal.encoders.audio.musicnn_package import (
    EPSILON,
    LogMelEncoder,
    norm_tensors,
    package_weights,
)
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.torch_encoder import load_tensors
from anymodal.encoders.weights import locations

FRAMES = 187
"""Frames (3 s) that the published network takes."""
PREPROCESSING = (
    "musicnn vgg 1: 16 kHz, 1 s windows, stft 512/256 centred zero-padded hann, 96 slaney mels of "
    "power, log10(1e4 x + 1), repeated to 187 frames; maximum and mean of every block"
)
_CHANNELS = 128
_POOLS = (((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))
"""Maximum pooling after each block: kernel (frames, bands) and stride."""
_CHECKPOINT = "MTT_vgg"
_SHA256 = "2deb057fe268ac78d4cdf0a2dadb3b97f1fc519ed1ce89baefdb5e95d188325d"


class VGG(nn.Module):
    """The network; input (n, 187, 96) log-mel spectra."""

    def __init__(self, tags: int = 50) -> None:
        super().__init__()
        self.norm_input = nn.BatchNorm2d(1, eps=EPSILON)
        self.layers = nn.ModuleList(
            _block(before, after) for before, after in pairwise((1, *[_CHANNELS] * len(_POOLS)))
        )
        self.tags = nn.Linear(2 * _CHANNELS, tags)

    def maps(self, spectra: torch.Tensor) -> list[torch.Tensor]:
        """Maps of the five blocks before their pooling, (n, 128, frames, bands) each."""
        found = [self.layers[0](self.norm_input(spectra[:, None]))]
        for layer, (kernel, stride) in zip(self.layers[1:], _POOLS, strict=False):
            found.append(layer(F.max_pool2d(found[-1], kernel, stride)))
        return found

    def pooled(self, spectra: torch.Tensor) -> torch.Tensor:
        """Maximum and mean of every channel of all blocks, block by block: (n, 1280)."""
        return torch.cat(
            [part for m in self.maps(spectra) for part in (m.amax((2, 3)), m.mean((2, 3)))], dim=1
        )

    def penultimate(self, spectra: torch.Tensor) -> torch.Tensor:
        """The last map after its pooling, which the tags are made from: (n, 2 · 1 · 128)."""
        kernel, stride = _POOLS[-1]
        last = F.max_pool2d(self.maps(spectra)[-1], kernel, stride)
        return last.permute(0, 2, 3, 1).flatten(1)

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """Logits of the tags: (n, tags)."""
        return self.tags(self.penultimate(spectra))


class VGGEncoder(LogMelEncoder):
    """One second of sound → 1280 values. `get("musicnn_vgg_mtt")` builds it."""

    def __init__(self, info: EncoderInfo, network: VGG, device: str) -> None:
        super().__init__(info, network, device, PREPROCESSING)
        self._vgg = network

    def _front(self, windows: torch.Tensor) -> torch.Tensor:
        return repeated(self.log_mel(windows))

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self._vgg.pooled(windows)


def repeated(spectra: torch.Tensor) -> torch.Tensor:
    """Spectra (n, frames, 96) one after the other until there are 187 frames: (n, 187, 96)."""
    times = -(-FRAMES // spectra.shape[1])
    return spectra.repeat(1, times, 1)[:, :FRAMES]


def load(info: EncoderInfo, device: str, path: Path | None) -> VGGEncoder:
    """Build an encoder of this family (see `anymodal.encoders.get`)."""
    tensors = package_weights(info, path, _CHECKPOINT, _SHA256, convert)
    network = VGG()
    load_tensors(network, tensors, info.name)
    return VGGEncoder(info, network, device)


def convert(variables: dict[str, np.ndarray]) -> locations.Tensors:
    """TensorFlow variables of a vgg checkpoint → tensors of `VGG`."""
    tensors: locations.Tensors = dict(norm_tensors(variables, "batch_normalization", "norm_input"))
    for number in range(len(_POOLS)):
        source, name = f"{number + 1}CNN", f"layers.{number}"
        # height (time), width, in, out → out, in, height, width
        tensors[f"{name}.0.weight"] = variables[f"{source}/kernel"].transpose(3, 2, 0, 1)
        tensors[f"{name}.0.bias"] = variables[f"{source}/bias"]
        norm = f"batch_normalization_{number + 1}"
        tensors.update(norm_tensors(variables, norm, f"{name}.2"))
    tensors["tags.weight"] = variables["dense/kernel"].T
    tensors["tags.bias"] = variables["dense/bias"]
    return tensors


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(after, eps=EPSILON)
    )
