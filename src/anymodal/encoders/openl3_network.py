"""The convolutional networks of OpenL3 and its decibel mel spectrogram, in PyTorch.

Tensors of the embedding are flattened as (height, width, channel), the order of the publisher's
Keras model. A one-second spectrogram is (256 bands, 199 frames), an image (224, 224).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anymodal.encoders.audio.mel import mel_filterbank

CHANNELS = (64, 64, 128, 128, 256, 256, 512)
"""Filters of the layers before the embedding layer, which has 512."""
EMBEDDING_CHANNELS = 512
_POOLED = (1, 3, 5)
"""Layers whose maps are halved."""
_EPSILON = 1e-3

FFT, HOP, BANDS = 2048, 242, 256
_SMALLEST = 1e-10
_RANGE_DB = 80.0


class Layer(nn.Module):
    """Convolution 3 × 3, batch normalisation, ReLU; or the last two the other way round."""

    def __init__(self, before: int, after: int, norm_last: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(after, eps=_EPSILON)
        self.norm_last = norm_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.norm(F.relu_(x)) if self.norm_last else F.relu_(self.norm(x))


class OpenL3Network(nn.Module):
    """Input (n, channels, height, width) → (n, dim), by maxima over `pool` (height, width) of the
    embedding layer's map; the layers `norm_last` normalise after their ReLU."""

    def __init__(
        self, channels: int, pool: tuple[int, int], norm_last: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.pool = pool
        self.norm_input = nn.BatchNorm2d(channels, eps=_EPSILON)
        before = (channels, *CHANNELS[:-1])
        self.layers = nn.ModuleList(
            Layer(b, after, i in norm_last)
            for i, (b, after) in enumerate(zip(before, CHANNELS, strict=True))
        )
        self.embedding = nn.Conv2d(CHANNELS[-1], EMBEDDING_CHANNELS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm_input(x)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in _POOLED:
                x = F.max_pool2d(x, 2)
        x = F.max_pool2d(self.embedding(x), self.pool)
        return x.permute(0, 2, 3, 1).flatten(1)

    def folded(self) -> OpenL3Network:
        """A copy for inference whose normalisations are part of the convolutions before them, with
        channels last in memory: the same function up to rounding in two thirds of the time.

        Normalisations after a ReLU, and that of the input (it would change what zeros beyond the
        border mean), stay.
        """
        network = copy.deepcopy(self).eval()
        for layer in network.layers:
            assert isinstance(layer, Layer)
            if not layer.norm_last:
                assert isinstance(layer.norm, nn.BatchNorm2d)
                layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)
                layer.norm = nn.Identity()
        network.requires_grad_(False)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class DecibelMel(nn.Module):
    """Audio at 48 kHz, float32 (n, samples) → decibels (n, 256, 1 + (samples - 1) // 242).

    Frames of 2048 samples start at multiples of 242, zeros beyond the end, periodic Hann window;
    magnitudes in Slaney's mel bands as 10 log10(max(x, 1e-10)), relative to the loudest value of
    the example, not below -80. Silence is 0 throughout, as in the publisher's front end.

    Computed in float64 where the device has it: between the partials of a pure tone the float32
    transform's rounding errors lie above the floor of -80, and would be part of the embedding.
    """

    bank: torch.Tensor
    window: torch.Tensor

    def __init__(self, sample_rate: int, precise: bool = True) -> None:
        super().__init__()
        kind = torch.float64 if precise else torch.float32
        # Keras holds the filters in float32
        bank = torch.from_numpy(mel_filterbank(sample_rate, FFT, BANDS)).float().to(kind)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(FFT, dtype=kind), persistent=False)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        samples = audio.shape[1]
        frames = -(-samples // HOP)
        end = (frames - 1) * HOP + FFT
        padded = F.pad(audio.to(self.window.dtype), (0, end - samples))
        spectrum = torch.stft(
            padded, FFT, HOP, window=self.window, center=False, return_complex=True
        )
        # abs() guards against overflow that audio cannot cause, and takes four times as long
        magnitude = (spectrum.real.square() + spectrum.imag.square()).sqrt()
        decibels = 10.0 * torch.log10((self.bank @ magnitude).clamp_min(_SMALLEST))
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return (decibels - loudest).clamp_min(-_RANGE_DB).float()
