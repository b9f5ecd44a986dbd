"""Checked pairs of rows, and the batches that training gathers from two matrices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from anymodal.core.errors import AnymodalError

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(audio_index, image_index, class_code), integers (pairs,): rows of the audio and the image matrix
that belong together, and their class."""


class EpochPairs(Protocol):
    """Draws the pairs of one epoch; the same generator state gives the same pairs."""

    def __call__(self, rng: np.random.Generator, /) -> Pairs: ...


class Batches:
    """Batches of rows of two matrices, which are copied to the device once."""

    def __init__(
        self,
        audio: np.ndarray,
        image: np.ndarray,
        device: torch.device,
        batch_size: int,
        with_classes: bool,
    ) -> None:
        self.device = device
        self.batch_size = batch_size
        self.with_classes = with_classes
        try:
            self.audio, self.image = (_tensor(x).to(device) for x in (audio, image))
        except torch.OutOfMemoryError as error:
            raise AnymodalError(
                f"the embeddings do not fit on {device.type}: set translate.device to cpu"
            ) from error

    def of(self, pairs: Pairs) -> Iterator[tuple[Tensor, Tensor, Tensor | None, int]]:
        """Audio, image, classes and number of pairs of each batch, in the order of `pairs`."""
        audio, image = (torch.from_numpy(part).to(self.device) for part in pairs[:2])
        classes = torch.from_numpy(pairs[2]) if self.with_classes else None
        for start, stop in batch_bounds(len(audio), self.batch_size):
            yield (
                self.audio.index_select(0, audio[start:stop]),
                self.image.index_select(0, image[start:stop]),
                None if classes is None else classes[start:stop],
                stop - start,
            )


def batch_bounds(pairs: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and stop of each batch.

    A last batch of one pair joins the one before it: BatchNorm and the loss need two.
    """
    starts = list(range(0, pairs, batch_size))
    if len(starts) > 1 and pairs - starts[-1] < 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], pairs], strict=True)) if pairs else []


def check_pairs(pairs: Pairs, sizes: tuple[int, int], with_classes: bool, which: str) -> Pairs:
    """`pairs` as int64; raises `AnymodalError` where nothing could be learned from them.

    `sizes` are the numbers of audio and image rows; `which` names the pairs in messages.
    """
    parts = [np.asarray(part) for part in pairs]
    if len(parts) != 3 or any(part.ndim != 1 or part.dtype.kind not in "iu" for part in parts):
        raise AnymodalError(f"{which} pairs must be three 1-D arrays of integers")
    audio, image, classes = (part.astype(np.int64, copy=False) for part in parts)
    if not len(audio) == len(image) == len(classes):
        raise AnymodalError(
            f"{which} pairs differ in length: {len(audio)}, {len(image)} and {len(classes)}"
        )
    if len(audio) < 2:
        raise AnymodalError(
            f"{len(audio)} {which} pair(s), at least 2 are needed: enlarge the translation subset"
        )
    for name, index, size in (("audio", audio, sizes[0]), ("image", image, sizes[1])):
        if index.min() < 0 or index.max() >= size:
            raise AnymodalError(f"{which} pairs name {name} rows outside 0 … {size - 1}")
    if with_classes and (classes == classes[0]).all():
        raise AnymodalError(
            f"all {which} pairs are of one class, so none is a negative: add classes, "
            "or set translate.same_class_negatives"
        )
    return audio, image, classes


def reorder(pairs: Pairs, order: np.ndarray) -> Pairs:
    """`pairs` in the given order."""
    audio, image, classes = pairs
    return audio[order], image[order], classes[order]


def _tensor(x: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # a memory map is not writable, and nobody writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(x)
