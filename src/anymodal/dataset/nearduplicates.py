"""Near-duplicate pictures: the same photograph scaled, recompressed, recoloured or mirrored.

Conventions
-----------
Fingerprint   difference hash of 64 bits (8 rows of 8 comparisons of neighbouring grey values on a
              9 × 8 grid), the same of the mirrored picture, and a grey thumbnail of 32 × 32.
Duplicates    two pictures whose hashes differ in at most `MAX_DISTANCE` bits (the one or the
              mirrored), confirmed by thumbnails that correlate by at least `MIN_CORRELATION`.

The hash alone takes two clarinets that lie on the same diagonal for one picture; the thumbnails
alone take all pairs to compare. Tried on 1,479 photographs of instruments on plain grounds: the
two thresholds together find what the eye calls the same photograph, and no pair of two classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_DISTANCE = 6
MIN_CORRELATION = 0.9
_BITS = 64
_BLOCK = 1024
_CHUNK = 2048


class Fingerprint(NamedTuple):
    """What a picture is compared by."""

    bits: np.ndarray
    """bool (2, 64): hash of the picture, hash of the mirrored picture."""
    thumbnail: np.ndarray
    """uint8 (32, 32)."""


def fingerprint(picture: np.ndarray) -> Fingerprint:
    """Fingerprint of a picture, uint8 (height, width, 3)."""
    grey = Image.fromarray(picture).convert("L")
    grid = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = [(each[:, 1:] > each[:, :-1]).ravel() for each in (grid, grid[:, ::-1])]
    thumbnail = np.asarray(grey.resize((32, 32), Image.Resampling.BOX))
    return Fingerprint(np.stack(bits), thumbnail)


def near_duplicates(
    fingerprints: list[Fingerprint],
    distance: int = MAX_DISTANCE,
    correlation: float = MIN_CORRELATION,
) -> np.ndarray:
    """Pairs (m, 2) of positions that link the near-duplicates among `fingerprints`.

    The pairs are enough to connect each set of duplicates, chains included; not every pair of a
    set is listed. A picture of one even grey has nothing to be compared by and is never linked.
    """
    if len(fingerprints) < 2:
        return np.empty((0, 2), dtype=np.int64)
    bits = np.stack([each.bits for each in fingerprints])
    thumbnails = np.stack([each.thumbnail for each in fingerprints])
    textured = np.flatnonzero(thumbnails.reshape(len(bits), -1).std(axis=1) >= 1.0)
    # ± 1: the inner product of two hashes is then 64 − 2 · distance
    signs = np.where(bits[textured], 1, -1).astype(np.float32)
    plain = thumbnails[textured]
    sets = _Sets(len(textured))
    for other, turned in ((0, plain), (1, plain[:, :, ::-1])):
        for rows, columns in _blocks(bits[textured, 0], bits[textured, other], distance):
            agreement = signs[rows, 0] @ signs[columns, other].T
            near, far = np.nonzero(agreement >= _BITS - 2 * distance)
            one, two = rows[near], columns[far]
            one, two = sets.apart(one[one < two], two[one < two])
            while len(one):
                alike = _correlations(plain, turned, one[:_CHUNK], two[:_CHUNK]) >= correlation
                sets.join(one[:_CHUNK][alike], two[:_CHUNK][alike])
                one, two = sets.apart(one[_CHUNK:], two[_CHUNK:])
    sets.settle()
    first, positions = np.unique(sets.names, return_index=True)
    firsts = positions[np.searchsorted(first, sets.names)]
    pairs = np.stack([firsts, np.arange(len(firsts))], axis=1)
    return textured[pairs[pairs[:, 0] != pairs[:, 1]]]


def components(edges: np.ndarray, size: int) -> np.ndarray:
    """Label (size,) of the connected component of every position; `edges` is (m, 2)."""
    ones = np.ones(len(edges), dtype=np.int8)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1]


class _Sets:
    """Disjoint sets of positions, joined in bulk."""

    def __init__(self, size: int) -> None:
        self.names = np.arange(size)
        self._links: list[np.ndarray] = []

    def apart(self, one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs not known to belong together, which alone are worth comparing."""
        apart = self.names[one] != self.names[two]
        return one[apart], two[apart]

    def join(self, one: np.ndarray, two: np.ndarray) -> None:
        """Join the sets of `one` and `two`, pair by pair; soon, or when settled."""
        if len(one):
            self._links.append(np.stack([one, two], axis=1))
            # renaming costs a pass over everything: not for every few links
            if sum(map(len, self._links)) >= _CHUNK // 2:
                self.settle()

    def settle(self) -> None:
        """Bring `names` up to date."""
        if self._links:
            links = self.names[np.concatenate(self._links)]
            self._links = []
            names, pairs = np.unique(links, return_inverse=True)
            merged = components(pairs.reshape(-1, 2), len(names))
            _, first = np.unique(merged, return_index=True)
            renamed = np.arange(len(self.names))
            renamed[names] = names[first[merged]]
            self.names = renamed[self.names]


def _blocks(
    keys: np.ndarray, others: np.ndarray, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks (rows, columns) that hold every pair within `distance`.

    Of distance + 1 bands at least one has no differing bit (pigeonhole), so only pictures that
    agree in a band are compared. A band takes every so-many-th bit, because neighbouring bits are
    all zero alike on a plain ground.
    """
    for band in range(distance + 1):
        weights = 1 << np.arange(len(range(band, _BITS, distance + 1)), dtype=np.int64)
        key, other = (each[:, band :: distance + 1] @ weights for each in (keys, others))
        key_order, other_order = np.argsort(key, kind="stable"), np.argsort(other, kind="stable")
        shared = np.intersect1d(key, other)
        spans = [
            np.searchsorted(each[order], shared, side=side)
            for each, order in ((key, key_order), (other, other_order))
            for side in ("left", "right")
        ]
        for start, end, other_start, other_end in zip(*spans, strict=True):
            columns = other_order[other_start:other_end]
            for at in range(start, end, _BLOCK):
                for column in range(0, len(columns), 16 * _BLOCK):
                    rows = key_order[at : min(at + _BLOCK, end)]
                    yield rows, columns[column : column + 16 * _BLOCK]


def _correlations(
    one: np.ndarray, two: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    # floats only here: as bytes alone the thumbnails of very many pictures fit in memory
    return np.einsum("nd,nd->n", _standardised(one[rows]), _standardised(two[columns]))


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)
