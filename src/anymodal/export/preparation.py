"""What is done to audio or an image before an exported model sees it, without any framework."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.core.record import Record
from anymodal.encoders import guarantees
from anymodal.encoders.base import PreparingEncoder
from anymodal.encoders.image.preprocessing import (
    CROP,
    central_square,
    fractional_square,
    network_input,
)
from anymodal.encoders.windows import audio_windows, rgb_image

_OF_IMAGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "central_square": central_square,
    "fractional_square": fractional_square,
    "openl3": network_input,
}
IN_WORDS = {
    "windows": "Cut into windows of `size` samples, the last one ending where the audio ends; "
    "zeros are appended to what is shorter. The results of several windows are averaged.",
    "central_square": "The square from the middle, of side int(size / padded * shorter side) with "
    f"padded = size + round(size * (1 / {CROP} - 1)), that begins at (length - side + 1) // 2 in "
    "both directions; resized to `size` with Pillow's BICUBIC filter, which smooths when reducing.",
    "fractional_square": f"The square from the middle, of side {CROP} * shorter side, whose edges "
    "may lie between pixels (Pillow's resize with a box); resized to `size` with Pillow's BILINEAR "
    "filter, which smooths when reducing.",
    "openl3": "An image of size × size: x * 2 / 255 - 1. Else, if the shorter side has `size` to "
    "256 pixels: size × size from the middle, divided by the largest value there. Else: the "
    "shorter side resized to 256 (bilinear, no smoothing), size × size from the middle, over 255.",
}


class Preparation(Record):
    """How an item is prepared, as onnx.json says it."""

    kind: str
    """One of `IN_WORDS`."""
    size: int
    """Samples of a window, or pixels of an image's side."""
    in_words: str = ""

    def __call__(self, item: np.ndarray) -> np.ndarray:
        """Return the model's input for one item, (windows, …).

        `item` is float32 (samples,) at the encoder's rate, or uint8 (height, width, 3); anything
        else raises `AnymodalError`.
        """
        if self.kind not in IN_WORDS:
            raise AnymodalError(f"the preparation {self.kind!r} is not known; update anymodal")
        try:
            if self.kind == "windows":
                return np.stack(list(audio_windows(item, self.size)))
            return _OF_IMAGES[self.kind](rgb_image(item), self.size)[None]
        except AnymodalError as error:
            raise AnymodalError(f"the item {error}") from error


def preparation_of(encoder: PreparingEncoder) -> Preparation | None:
    """Return the preparation that gives an encoder's own numbers, bit by bit, for a few items; None
    where none does."""
    items = guarantees.items(encoder)
    expected = [encoder.prepare(item) for item in items]
    size = encoder.image_size or round(WINDOW_SECONDS * (encoder.sample_rate or 0))
    for kind in _OF_IMAGES if encoder.modality == "image" else ("windows",):
        preparation = Preparation(kind=kind, size=size, in_words=IN_WORDS[kind])
        pairs = zip(map(preparation, items), expected, strict=True)
        if all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs):
            return preparation
    return None
