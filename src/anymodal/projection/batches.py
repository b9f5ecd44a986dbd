"""Checked pairs of rows, and the batches that training gathers from two matrices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from anymodal.core.errors import AnymodalError
from anymodal.data.pairing import Pairs

EpochPairs = Callable[[np.random.Generator], Pairs]
"""Draws the pairs of one epoch; the same generator state gives the same pairs."""


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
        classes = torch.from_numpy(pairs.code) if self.with_classes else None
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
    """Return `pairs`; raise `AnymodalError` where nothing could be learned from them.

    `sizes` are the numbers of audio and image rows; `which` names the pairs in messages.
    """
    if len(pairs.audio) < 2:
        raise AnymodalError(
            f"{len(pairs.audio)} {which} pair(s), at least 2 are needed: enlarge the translation "
            "subset"
        )
    for name, index, size in zip(("audio", "image"), pairs, sizes, strict=False):
        if index.min() < 0 or index.max() >= size:
            raise AnymodalError(f"{which} pairs name {name} rows outside 0 … {size - 1}")
    if with_classes and (pairs.code == pairs.code[0]).all():
        raise AnymodalError(
            f"all {which} pairs are of one class, so none is a negative: add classes, "
            "or set translate.same_class_negatives"
        )
    return pairs


def _tensor(x: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # a memory map is not writable, and nobody writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(x)
