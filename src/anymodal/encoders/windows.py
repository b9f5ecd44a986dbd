"""Validation of items, and cutting of audio into windows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anymodal.core.errors import AnymodalError


def audio_windows(item: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """Consecutive windows of an audio item: float32 (samples,), at least one; may be views.

    An item shorter than `samples` gets zeros appended. The last window of a longer one ends where
    the audio ends, so it may overlap the one before. Errors continue "<encoder>: item <row> ...".
    """
    if not isinstance(item, np.ndarray) or item.ndim != 1 or item.dtype.kind != "f":
        raise AnymodalError("must be mono audio: a one-dimensional array of floats")
    if not len(item):
        raise AnymodalError("is empty")
    if not np.isfinite(item).all():
        raise AnymodalError("holds values that are not finite")
    item = item.astype(np.float32, copy=False)
    last = len(item) - samples
    if last <= 0:
        yield np.pad(item, (0, -last))
        return
    for start in sorted({*range(0, last, samples), last}):
        yield item[start : start + samples]


def rgb_image(item: np.ndarray) -> np.ndarray:
    """An image item, uint8 (height, width, 3), as it is. Errors as in `audio_windows`."""
    if not isinstance(item, np.ndarray) or item.dtype != np.uint8:
        raise AnymodalError("must be an image: an array of uint8")
    if item.ndim != 3 or item.shape[2] != 3 or not item.size:
        raise AnymodalError(f"must have the shape (height, width, 3), not {item.shape}")
    return item
