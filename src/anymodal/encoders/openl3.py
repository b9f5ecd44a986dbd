"""OpenL3 (Cramer, Wu, Salamon and Bello, "Look, Listen, and Learn More", ICASSP 2019): the audio
and the image network trained together on the music videos of AudioSet, ported to PyTorch.

Networks     those of the package openl3 0.4.2 with input_repr "mel256" and content_type "music".
Audio        one second at 48 kHz → `DecibelMel`, 256 bands × 199 frames, as the package gives
             with `center=False, hop_size=1.0`.
Image        as the package prepares an array of uint8 (`network_input`).
Embedding    maxima over the last layer's map: 6144 (audio) or 8192 (image) values; over the whole
             map in `openl3_audio_512` and `openl3_image_512`: 512 values.
Weights      the publisher's .h5 files (CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.encoders.image.preprocessing import network_input
from anymodal.encoders.openl3_network import CHANNELS, DecibelMel, OpenL3Network
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.torch_encoder import TorchEncoder, load_tensors
from anymodal.encoders.weights.files import locate
from anymodal.encoders.weights.keras_h5 import is_keras_file, read_layers
from anymodal.encoders.weights.tensors import Tensors, given_weights
from anymodal.encoders.windows import audio_windows, rgb_image

AUDIO_PREPROCESSING = (
    "openl3 mel256 1: 48 kHz, 1 s windows, stft 2048/242 from 0 end-padded hann, 256 slaney mels "
    "of magnitude, 10 log10(max(x, 1e-10)) - max, floor -80; max pool {pool}, h w c"
)
IMAGE_PREPROCESSING = (
    "openl3 image 1: 224 px as -1…1, to 256 px the central 224 over its maximum, else bilinear to "
    "256 px without anti-aliasing, central 224 as 0…1; max pool {pool}, h w c"
)
AUDIO_POOLS = {6144: (8, 8), 512: (32, 24)}
IMAGE_POOLS = {8192: (7, 7), 512: (28, 28)}
IMAGE_NORM_LAST = (1,)
"""The image network's second layer normalises after its ReLU; all others before."""
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CONVOLUTION = {"kernel": "weight", "bias": "bias"}


class OpenL3Encoder(TorchEncoder):
    """One second of audio → 6144 or 512 values, or one image → 8192 or 512."""

    def __init__(self, info: EncoderInfo, network: OpenL3Network, device: str) -> None:
        text = AUDIO_PREPROCESSING if info.modality == "audio" else IMAGE_PREPROCESSING
        super().__init__(info, network, device, text.format(pool=network.pool))
        self._folded = network.folded()
        if info.sample_rate is not None:
            precise = self.device.type != "mps"  # it has no float64
            self._mel = DecibelMel(info.sample_rate, precise).to(self.device)

    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        if self.modality == "audio":
            yield from audio_windows(item, round(WINDOW_SECONDS * (self.sample_rate or 0)))
        else:
            yield network_input(rgb_image(item), self.image_size or 0)

    def _front(self, windows: torch.Tensor) -> torch.Tensor:
        if self.modality == "audio":
            return self._mel(windows)[:, None]
        return windows.permute(0, 3, 1, 2)  # a view: the network wants channels last in memory

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self._folded(windows)


def load(info: EncoderInfo, device: str, path: Path | None) -> OpenL3Encoder:
    """Build an encoder of this family (see `anymodal.encoders.get`)."""
    if info.modality == "audio":
        network = OpenL3Network(1, AUDIO_POOLS[info.dim])
    else:
        network = OpenL3Network(3, IMAGE_POOLS[info.dim], IMAGE_NORM_LAST)
    load_tensors(network, find_weights(info, path), info.name)
    return OpenL3Encoder(info, network, device)


def find_weights(info: EncoderInfo, path: Path | None) -> Tensors:
    """Tensors of `OpenL3Network` from `path` (safetensors, .h5 or .h5.gz), else from
    `<ANYMODAL_WEIGHTS_DIR>/<encoder>.safetensors`, else from the publisher's file (`files.locate`).

    Raises `AnymodalError` where there are none, or the file is broken or of another network.
    """
    if path is None or not is_keras_file(path):
        tensors = given_weights(info.name, path)
        if tensors is not None:
            return tensors
    return read(path or locate(info.name, info.files[0]))


def read(path: Path) -> Tensors:
    """Read a file of the publisher (.h5, or .h5.gz) as tensors of `OpenL3Network`."""
    layers = list(read_layers(path).values())
    try:
        return convert(layers)
    except AnymodalError as error:
        raise AnymodalError(f"{path} holds other weights than OpenL3's: {error}") from error


def convert(layers: list[dict[str, np.ndarray]]) -> Tensors:
    """Keras layers in the order of the network → tensors of `OpenL3Network`.

    Layers that are neither convolutions nor normalisations (the spectrogram layer of old files) are
    passed over. Shapes are checked when the tensors are loaded.
    """
    kinds = {frozenset(_NORM): _NORM, frozenset(_CONVOLUTION): _CONVOLUTION}
    known = [layer for layer in layers if frozenset(layer) in kinds]
    inner = [f"layers.{i}.{kind}" for i in range(len(CHANNELS)) for kind in ("conv", "norm")]
    names = ["norm_input", *inner, "embedding"]
    if len(known) != len(names):
        raise AnymodalError(f"it has {len(known)} layers with weights, not {len(names)}")
    tensors: Tensors = {}
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
