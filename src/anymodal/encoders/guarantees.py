"""A check of what `anymodal.encoders.base` promises, for any encoder, of this package or another.

guarantees.check(encoders.get("my_encoder"))
"""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.encoders.base import Encoder, PreparingEncoder

TOLERANCE = 1e-5
"""Largest difference between a vector alone and in a batch, relative to its largest value: what
float32 sums in another order differ by."""


def check(encoder: Encoder) -> None:
    """Raise `AnymodalError` that names the first promise of `encoder` that is broken: on shape and
    type, finite values, the same vector in any batch, items left unchanged, wrong items."""
    batch = items(encoder)
    for item in batch:
        item.flags.writeable = False  # an encoder that writes into its items raises ValueError
    _shape(encoder, encoder.embed([]), 0)
    rows = []
    for number, item in enumerate(batch):
        rows.append(_shape(encoder, encoder.embed([item]), 1)[0])
        if not np.isfinite(rows[-1]).all():
            raise _broken(encoder, f"item {number} of its kind has a vector that is not finite")
    alone = np.array(rows)
    order = np.random.default_rng(1).permutation(len(batch))
    together = _shape(encoder, encoder.embed([batch[i] for i in order]), len(batch))
    away = np.abs(together - alone[order]).max(axis=1)
    if (away > TOLERANCE * np.abs(alone[order]).max(axis=1)).any():
        raise _broken(encoder, "a vector depends on the other items of its batch, or their order")
    if not np.array_equal(encoder.embed(batch[:1]), alone[:1]):
        raise _broken(encoder, "the same item has another vector when it is embedded again")
    if np.array_equal(alone[0], alone[1]):
        raise _broken(encoder, "quite different items have the same vector")
    for wrong in wrong_items(encoder):
        _refuses(encoder, batch[0], wrong)
    if isinstance(encoder, PreparingEncoder):
        _prepares(encoder, batch[0], alone[:1])


def items(encoder: Encoder) -> list[np.ndarray]:
    """Ordinary and extreme items of the encoder's modality; the first two are quite different."""
    rng = np.random.default_rng(0)
    if encoder.modality == "image":
        ramp = np.linspace(0, 255, 300).astype(np.uint8)
        return [
            rng.integers(0, 256, (240, 320, 3), dtype=np.uint8),
            np.broadcast_to(ramp[None, :, None], (200, 300, 3)).copy(),
            np.zeros((224, 224, 3), np.uint8),
            np.full((50, 400, 3), 255, np.uint8),
            np.full((1, 1, 3), 77, np.uint8),
            rng.integers(0, 256, (1, 500, 3), dtype=np.uint8),
        ]
    rate = encoder.sample_rate
    if rate is None:
        raise _broken(encoder, "an audio encoder states its sample_rate")
    time = np.arange(rate) / rate
    waveforms = [
        0.3 * np.sin(2 * np.pi * 440 * time),
        0.1 * rng.standard_normal(rate),
        np.zeros(rate),
        np.clip(4 * np.sin(2 * np.pi * 100 * time), -1, 1),
        1.3 * np.sign(np.sin(2 * np.pi * 100 * time)),
        np.full(1, 0.5),
        0.1 * rng.standard_normal(rate // 3),
        0.1 * rng.standard_normal(rate * 5 // 4),
    ]
    return [waveform.astype(np.float32) for waveform in waveforms]


def wrong_items(encoder: Encoder) -> list[Any]:
    """Values that are not items of the encoder's modality."""
    good = items(encoder)[0]
    if encoder.modality == "audio":
        nan = np.array([np.nan], np.float32)
        wrong = [np.stack([good, good]), (good * 32767).astype(np.int16), nan]
    else:
        wrong = [good[:, :, 0], good[:, :, :2], good.astype(np.float32) / 255]
    return [good[:0], *wrong, good.tolist(), "song.wav"]


def _shape(encoder: Encoder, got: object, count: int) -> np.ndarray:
    expected = (count, encoder.dim)
    if not isinstance(got, np.ndarray) or got.shape != expected or got.dtype != np.float32:
        form = f"{got.dtype} {got.shape}" if isinstance(got, np.ndarray) else type(got).__name__
        raise _broken(encoder, f"{count} items give {form}, not float32 {expected}")
    return got


def _prepares(encoder: PreparingEncoder, item: np.ndarray, alone: np.ndarray) -> None:
    prepared = encoder.prepare(item)
    if not np.array_equal(encoder.embed_prepared([prepared]), alone):
        raise _broken(encoder, "an item prepared ahead has another vector")
    try:
        elsewhere = pickle.loads(pickle.dumps(encoder.preparation()))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _broken(encoder, f"its preparation cannot be pickled ({error})") from error
    if not np.array_equal(elsewhere(item), prepared):
        raise _broken(encoder, "an item prepared by another process differs")


def _refuses(encoder: Encoder, good: np.ndarray, wrong: Any) -> None:
    what = f"{type(wrong).__name__}{getattr(wrong, 'shape', '')}"
    try:
        encoder.embed([good, wrong])
    except AnymodalError as error:
        if re.fullmatch(rf"{re.escape(encoder.name)}: item 1 .*", str(error)):
            return
        breach = f"it refuses {what} without `{encoder.name}: item 1 …` in one line"
    except Exception as error:
        breach = f"it meets {what} with {type(error).__name__}, not AnymodalError"
    else:
        breach = f"it takes {what} for an item"
    raise _broken(encoder, breach)


def _broken(encoder: Encoder, what: str) -> AnymodalError:
    return AnymodalError(f"encoder {encoder.name} breaks a promise: {what}")
