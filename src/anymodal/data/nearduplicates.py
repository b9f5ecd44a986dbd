"""Near-duplicate images: the same photograph scaled, recompressed, recoloured or mirrored.

Two images are near-duplicates if their difference hashes of 64 bits (or that of the one and of the
mirrored other) differ in at most `MAX_DISTANCE` bits and their grey thumbnails correlate by at
least `MIN_CORRELATION`: on 1,479 photographs of instruments these link no two classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_DISTANCE = 6
MIN_CORRELATION = 0.9
_BITS = 64
_BLOCK = 256  # images compared with all others at a time


class Fingerprint(NamedTuple):
    """What an image is compared by."""

    bits: np.ndarray
    """bool (2, 64): comparisons of neighbouring grey values on a grid of 9 × 8, in the image and
    in the mirrored image."""
    thumbnail: np.ndarray
    """uint8 (32, 32), grey."""


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Fingerprint of an image, uint8 (height, width, 3)."""
    grey = Image.fromarray(image).convert("L")
    grid = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = [(g[:, 1:] > g[:, :-1]).ravel() for g in (grid, grid[:, ::-1])]
    thumbnail = np.asarray(grey.resize((32, 32), Image.Resampling.BOX))
    return Fingerprint(np.stack(bits), thumbnail)


def near_duplicates(
    fingerprints: list[Fingerprint],
    distance: int = MAX_DISTANCE,
    correlation: float = MIN_CORRELATION,
) -> np.ndarray:
    """Pairs (m, 2) of positions that connect each set of near-duplicates, not all pairs of a set.

    Images of a single grey are never linked.
    """
    textured = np.flatnonzero([print_.thumbnail.std() >= 1.0 for print_ in fingerprints])
    if len(textured) < 2:
        return np.empty((0, 2), dtype=np.int64)
    # ± 1: the inner product of two hashes is then 64 − 2 · distance
    signs = np.stack([np.where(fingerprints[i].bits, 1, -1) for i in textured]).astype(np.float32)
    thumbnails = np.stack([fingerprints[i].thumbnail for i in textured])
    positions = np.arange(len(textured))
    first = positions  # of the set of every image
    for start in range(0, len(textured), _BLOCK):
        rows = slice(start, start + _BLOCK)
        pairs = [np.stack([first, positions], axis=1)]
        for mirrored in (0, 1):
            agreement = signs[rows, 0] @ signs[start:, mirrored].T
            near = np.flatnonzero(agreement.ravel() >= _BITS - 2 * distance)
            row, column = np.divmod(near, agreement.shape[1])
            row, column = row[row < column], column[row < column]
            columns, place = np.unique(column, return_inverse=True)
            others = thumbnails[start + columns]
            others = others[:, :, ::-1] if mirrored else others
            likeness = _standardised(thumbnails[rows]) @ _standardised(others).T
            alike = likeness[row, place] >= correlation
            pairs.append(start + np.stack([row, column], axis=1)[alike])
        label = components(np.concatenate(pairs), len(textured))
        first = np.unique(label, return_index=True)[1][label]
    linked = first != positions
    return textured[np.stack([first, positions], axis=1)[linked]]


def components(edges: np.ndarray, size: int) -> np.ndarray:
    """Label (size,) of the connected component of every position; `edges` is (m, 2)."""
    ones = np.ones(len(edges), dtype=np.int8)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    flat = thumbnails.reshape(len(thumbnails), 32 * 32).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)
