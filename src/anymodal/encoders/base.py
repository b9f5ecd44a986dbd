"""What every encoder is: a frozen network from one second of audio, or one image, to a vector.

Conventions
-----------
Audio item    float32 (samples,), mono, at the encoder's `sample_rate`, within [-1, 1] (values
              beyond, as resampling makes them, are neither refused nor clipped). Shorter than one
              second: zeros are appended. Longer: cut into consecutive one-second windows (the last
              one ends where the audio ends) whose embeddings are averaged.
Image item    uint8 (height, width, 3), RGB, any size; the encoder resizes.
Embedding     float32 (items, dim). A vector depends on its own item alone: the same alone and in
              any batch, in any order, in any run (up to float32 rounding of the linear algebra).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from anymodal.core.modality import Modality


@runtime_checkable
class Encoder(Protocol):
    """A frozen, pretrained encoder of one modality."""

    name: str
    """Registry name, such as `musicnn_mtt`."""
    modality: Modality
    dim: int
    """Length of an embedding."""
    sample_rate: int | None
    """Hz that audio items must have; None for images."""
    image_size: int | None
    """Side in pixels of the square the network sees; None for audio."""

    @property
    def version(self) -> str:
        """Hash of weights and preprocessing: equal versions give interchangeable embeddings."""
        ...

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """Embed `batch` (see the module's conventions) as float32 (len(batch), dim)."""
        ...

    def save_weights(self, path: Path) -> None:
        """Write the weights for `encoders.get(name, weights=path)`: as safetensors, or as a copy of
        the publisher's folder where the framework needs it."""
        ...


@runtime_checkable
class PreparingEncoder(Encoder, Protocol):
    """An encoder whose work on the processor can be done ahead, in other threads or processes.

    `embed_prepared([prepare(item) for item in batch])` is `embed(batch)`, bit by bit.
    """

    def prepare(self, item: np.ndarray) -> np.ndarray:
        """What the network will see of an item; `AnymodalError` for a wrong one. Thread-safe."""
        ...

    def embed_prepared(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """Embed what `prepare` gave, as `embed`."""
        ...

    def preparation(self) -> Callable[[np.ndarray], np.ndarray]:
        """`prepare` as a function that can be pickled and leaves the network behind."""
        ...
