"""Cropping and resizing of images for networks, in numpy and Pillow alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

CROP = 0.875
"""Share of the shorter side that the central squares keep."""
_SHORT_SIDE = 256


def central_square(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of a uint8 (height, width, 3) image, of whole pixels, resized to
    (size, size, 3)."""
    height, width = image.shape[:2]
    padded = size + round(size * (1 / CROP - 1))
    side = max(1, int(size / padded * min(height, width)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    top, left = min(top, height - side), min(left, width - side)
    square = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return np.array(square.resize((size, size), Image.Resampling.BICUBIC))


def fractional_square(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of a uint8 (height, width, 3) image, cut between pixels where need be,
    resized to (size, size, 3)."""
    height, width = image.shape[:2]
    side = CROP * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    return np.array(resized)


def network_input(item: np.ndarray, size: int = 224) -> np.ndarray:
    """What the network sees of a uint8 (height, width, 3) image: float32 (size, size, 3).

    As the package openl3 0.4.2: of size × size as it is, -1…1 (how the network was trained); of a
    short side up to 256 the central square over its largest value; else the short side resized to
    256 (bilinear, no anti-aliasing), the central square, 0…1, where the package refuses small ones.
    """
    height, width = item.shape[:2]
    if height == width == size:
        return item.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    short = min(height, width)
    if size <= short <= _SHORT_SIDE:
        top, left = height // 2 - size // 2, width // 2 - size // 2
        square = item[top : top + size, left : left + size].astype(np.float32)
        return square / max(square.max(), np.float32(1))
    top, bottom, down = _taps(height, short, size)
    left, right, across = _taps(width, short, size)
    seen = item[:, left[0] : right[-1] + 1]  # all other columns are cropped away
    rows = seen[top].astype(np.float32)
    rows += (seen[bottom] - rows) * down[:, None, None]
    square = rows[:, left - left[0]]
    square += (rows[:, right - left[0]] - square) * across[:, None]
    return square / np.float32(255)


def _taps(length: int, short: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of the central `size` pixels along a side of `length`, once it is resized by
    256 / short: its neighbours in the image before and after it, and the share of the latter."""
    resized = max(size, round(_SHORT_SIDE / short * length))
    first = resized // 2 - size // 2
    centres = (np.arange(first, first + size) + 0.5) * (length / resized) - 0.5
    centres = np.clip(centres, 0, length - 1)
    before = np.floor(centres).astype(np.int64)
    after = np.minimum(before + 1, length - 1)
    return before, after, (centres - before).astype(np.float32)
