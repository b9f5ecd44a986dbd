"""Names on a map, moved apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LETTER, LINE = 6.9, 17.0
"""Room for a letter and for a line, in pixels, generously."""
_CLEAR = 5.0
"""Pixels around another label's anchor that a label keeps clear, if it can."""
_RADII, _ANGLES = np.arange(0.0, 170.0, 6.0), 24


class Box(NamedTuple):
    """What is covered already: middle and size, in pixels."""

    x: float
    y: float
    width: float
    height: float


def spread(
    names: Sequence[str], anchors: np.ndarray, side: float, taken: Sequence[Box] = ()
) -> np.ndarray:
    """Middles of labels near their anchors, so that no two labels overlap, if there is room.

    Parameters
    ----------
    anchors: (labels, 2), in [0, 1] of a square frame.
    side: of the frame at its smallest, in pixels. Where it is larger, middles move apart and
        labels do not grow, so they do not overlap there either.
    taken: where no label may lie.

    Returns
    -------
    (labels, 2), in [0, 1] of the frame; labels are whole inside it.
    """
    middles = [np.array([box.x, box.y]) for box in taken]
    sizes = [np.array([box.width, box.height]) for box in taken]
    ends = np.asarray(anchors, np.float64).reshape(-1, 2) * side
    for number, name in enumerate(names):
        own = np.array([LETTER * len(name) + 4.0, LINE])
        others = np.delete(ends, number, axis=0)
        middles.append(_placed(ends[number], own, side, middles, sizes, others))
        sizes.append(own)
    return np.array(middles[len(taken) :]).reshape(-1, 2) / side


def _placed(
    end: np.ndarray,
    own: np.ndarray,
    side: float,
    middles: Sequence[np.ndarray],
    sizes: Sequence[np.ndarray],
    others: np.ndarray,
) -> np.ndarray:
    """The place nearest to `end` that is free, or the one that covers least."""
    low, high = own / 2, np.maximum(side - own / 2, own / 2)
    best, least = np.clip(end, low, high), math.inf
    there = np.array(middles).reshape(1, -1, 2)
    room = (own + np.array(sizes).reshape(1, -1, 2)) / 2
    for radius in _RADII:
        turns = np.arange(_ANGLES if radius else 1) * (2 * math.pi / _ANGLES)
        tried = end + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        tried = np.clip(tried, low, high)
        covered = np.clip(room - np.abs(tried[:, None] - there), 0.0, None).prod(axis=2)
        hidden = (np.abs(tried[:, None] - others[None]) < own / 2 + _CLEAR).all(axis=2)
        # a name on another's place misleads, and one on another name cannot be read
        cost = covered.sum(axis=1) + _CLEAR * hidden.sum(axis=1)
        place = int(np.argmin(cost))
        if cost[place] < least:
            least, best = float(cost[place]), tried[place]
        if least == 0.0:
            break
    return best
