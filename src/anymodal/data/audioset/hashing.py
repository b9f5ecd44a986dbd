"""Seeded 64-bit numbers for segments, each a function of seed, purpose and segment alone.

A shuffle of rows depends on the order of the rows and on every other row. These numbers depend on
neither: a list in another order gives the same selection, and a few segments more or less change
few places of it, so that media fetched for an earlier plan serve the next one.

Mixing: finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). Numbers of different purposes are independent.
"""

from __future__ import annotations

import hashlib

import numpy as np

ID_LENGTH = 11
"""Characters of a YouTube video id."""


def segment_words(video_ids: np.ndarray, start_s: np.ndarray, end_s: np.ndarray) -> np.ndarray:
    """Segments as whole numbers, uint64 (4, segments).

    `video_ids`: bytes of `ID_LENGTH` characters, S11; `start_s`, `end_s`: float64, seconds.
    """
    wide = np.ascontiguousarray(video_ids.astype(f"S{2 * 8}")).view("<u8").reshape(-1, 2)
    times = [np.ascontiguousarray(each, dtype="<f8").view("<u8") for each in (start_s, end_s)]
    return np.stack([wide[:, 0], wide[:, 1], *times]).astype(np.uint64)


def numbers(seed: int, purpose: str, words: np.ndarray) -> np.ndarray:
    """A number for every column of `words` (W, segments), uint64 (segments,)."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    state = np.full(words.shape[1], int.from_bytes(digest, "little"), dtype=np.uint64)
    for word in words:
        state = _mix(state ^ word)
    return state


def fractions(seed: int, purpose: str, words: np.ndarray) -> np.ndarray:
    """Numbers as fractions from 0 to below 1, float64 (segments,)."""
    return (numbers(seed, purpose, words) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
