"""Types that a network may compute in, and what the shorter ones cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from anymodal.encoders.base import Encoder

Precision = Literal["float32", "bfloat16", "float16"]
"""bfloat16 has float32's range and 8 bits of mantissa; float16 has 11 bits, and 65,504 as its
largest number. Embeddings are float32 in any case."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def precision_error(full: Encoder, short: Encoder, items: Sequence[np.ndarray]) -> float:
    """Largest relative error of a row, ‖short − full‖ / ‖full‖, over `items`.

    `full` and `short` are the same encoder in float32 and in a shorter type. Infinite where `short`
    overflows; 0 for no items.
    """
    expected = full.embed(items).astype(np.float64)
    got = short.embed(items).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)
    errors[(got == expected).all(axis=1)] = 0.0
    return float(np.where(np.isnan(errors), np.inf, errors).max(initial=0.0))
