"""What is done to a sound or a picture before an exported model sees it, without any framework.

A preparation is told by a few numbers, as onnx.json has them. `told_of` finds the one of an
encoder by trying: only one that gives the encoder's own numbers, bit by bit, is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from anymodal.encoders.base import WINDOW_SECONDS, PreparingEncoder
from anymodal.encoders.pictures import CROP, central_square, fractional_square, network_input
from anymodal.encoders.windows import audio_windows, picture
from anymodal.errors import AnymodalError

WORDS = {
    "windows": "Cut into windows of `samples`, the last one ending where the sound ends; zeros are "
    "appended to what is shorter. The results of several windows are averaged.",
    "central_square": "The square from the middle, of side int(size / padded * shorter side) with "
    f"padded = size + round(size * (1 / {CROP} - 1)), that begins at (length - side + 1) // 2 each "
    "way; resized to `size` with Pillow's BICUBIC filter, which smooths where it reduces.",
    "fractional_square": f"The square from the middle, of side {CROP} * shorter side, whose edges "
    "may lie between pixels (Pillow's resize with a box); resized to `size` with Pillow's BILINEAR "
    "filter, which smooths where it reduces.",
    "openl3": "A picture of size × size: x * 2 / 255 - 1. Else, if the shorter side has `size` to "
    "256 pixels: size × size from the middle, divided by the largest value there. Else: the "
    "shorter side resized to 256 (bilinear, no smoothing), size × size from the middle, over 255.",
}


def prepared(item: np.ndarray, told: Mapping[str, Any]) -> np.ndarray:
    """What the model sees of one item: (windows, …), in the order of time.

    Parameters
    ----------
    item: float32 (samples,) at the rate that onnx.json names, or uint8 (height, width, 3).
    told: the preparation.

    Raises `AnymodalError` for an item of the wrong type, shape or content.
    """
    try:
        return np.stack(list(_parts(item, told)))
    except AnymodalError as error:
        raise AnymodalError(f"the item {error}") from error


def told_of(encoder: PreparingEncoder) -> dict[str, Any] | None:
    """The preparation that an encoder does; None where it is another one than these."""
    items = list(_trials(encoder))
    expected = [encoder.prepare(item) for item in items]
    for told in _candidates(encoder):
        got = [prepared(item, told) for item in items]
        if all(
            a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
            for a, b in zip(got, expected, strict=True)
        ):
            return {**told, "in_words": WORDS[told["kind"]]}
    return None


def _parts(item: np.ndarray, told: Mapping[str, Any]) -> Iterator[np.ndarray]:
    if told["kind"] == "windows":
        yield from audio_windows(item, int(told["samples"]))
    elif told["kind"] == "central_square":
        yield central_square(picture(item), int(told["size"]))
    elif told["kind"] == "fractional_square":
        yield fractional_square(picture(item), int(told["size"]))
    elif told["kind"] == "openl3":
        yield network_input(picture(item), int(told["size"]))
    else:
        raise AnymodalError(f"needs a preparation of the kind {told['kind']!r}, which is not known")


def _candidates(encoder: PreparingEncoder) -> Iterator[dict[str, Any]]:
    if encoder.modality == "audio":
        yield {"kind": "windows", "samples": round(WINDOW_SECONDS * (encoder.sample_rate or 0))}
    else:
        for kind in ("central_square", "fractional_square", "openl3"):
            yield {"kind": kind, "size": encoder.image_size}


def _trials(encoder: PreparingEncoder) -> Iterator[np.ndarray]:
    """Sounds of several lengths, or pictures of several sizes."""
    rng = np.random.default_rng(0)
    if encoder.modality == "audio":
        rate = encoder.sample_rate or 0
        for samples in (1, rate // 2, rate, rate + 1, 5 * rate // 2):
            yield rng.uniform(-1, 1, samples).astype(np.float32)
        return
    size = encoder.image_size or 0
    for height, width in ((3, 5), (size, size), (size + 9, 250), (size * 2, 400), (90, size * 3)):
        yield rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
