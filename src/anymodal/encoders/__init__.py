"""Registry of encoders: name → what it is and which module builds it. Imports nothing heavy.

A new encoder is one module with a function `load(info, device, weights) -> Encoder` and one
`EncoderInfo` line in `_REGISTERED`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from anymodal.encoders.base import MODALITIES, Encoder, Modality
from anymodal.errors import AnymodalError


@dataclass(frozen=True)
class EncoderInfo:
    """What is known of an encoder without building it."""

    name: str
    modality: Modality
    dim: int
    """Length of an embedding."""
    module: str
    """Dotted name of the module whose `load(info, device, weights)` builds it."""
    sample_rate: int | None = None
    """Hz that audio items must have; None for images."""
    image_size: int | None = None
    """Side in pixels of the square the network sees; None for audio."""
    summary: str = ""
    """One line: network, training data, publisher."""


_MUSICNN = "anymodal.encoders.musicnn"
_LITE = "anymodal.encoders.efficientnet_lite"

_REGISTERED = (
    EncoderInfo(
        "musicnn_mtt", "audio", 1506, _MUSICNN, sample_rate=16_000,
        summary="musicnn trained on MagnaTagATune tags (Pons and Serra, 2019)",
    ),
    EncoderInfo(
        "musicnn_msd", "audio", 1506, _MUSICNN, sample_rate=16_000,
        summary="musicnn trained on Million Song Dataset tags (Pons and Serra, 2019)",
    ),
    EncoderInfo(
        "efficientnet_lite0", "image", 1280, _LITE, image_size=224,
        summary="EfficientNet-Lite0 trained on ImageNet",
    ),
    EncoderInfo(
        "efficientnet_lite1", "image", 1280, _LITE, image_size=240,
        summary="EfficientNet-Lite1 trained on ImageNet",
    ),
    EncoderInfo(
        "efficientnet_lite2", "image", 1280, _LITE, image_size=260,
        summary="EfficientNet-Lite2 trained on ImageNet",
    ),
)  # fmt: skip
_BY_NAME = {info.name: info for info in _REGISTERED}


def names(modality: Modality | None = None) -> tuple[str, ...]:
    """Names of the registered encoders, or of those of one modality, in registry order."""
    if modality is not None and modality not in MODALITIES:
        raise AnymodalError(f"no modality {modality!r}; known: {', '.join(MODALITIES)}")
    return tuple(i.name for i in _REGISTERED if modality in (None, i.modality))


def info(name: str) -> EncoderInfo:
    """What is known of an encoder; an unknown name is an `AnymodalError` that lists the names."""
    try:
        return _BY_NAME[name]
    except (KeyError, TypeError):
        raise AnymodalError(f"no encoder {name!r}; known: {', '.join(_BY_NAME)}") from None


def get(name: str, device: str = "auto", weights: str | Path | None = None) -> Encoder:
    """Build an encoder.

    Parameters
    ----------
    name: one of `names()`.
    device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the fastest that is there.
    weights: safetensors file that `save_weights` wrote; None: the publisher's package or the
        cache (see `anymodal.encoders.weights`).
    """
    found = info(name)
    module = importlib.import_module(found.module)
    encoder: Encoder = module.load(found, device, None if weights is None else Path(weights))
    return encoder
