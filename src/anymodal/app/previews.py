"""Audio and images as `data:` addresses, always encoded anew, never a file as it came."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
from PIL import Image

from anymodal.media.segmentation import SegmentedItem, Window

SIDE = 360
"""Longer side of an image, in pixels."""
AUDIO_S = 15.0
"""Seconds of an item that can be played, at most."""


def image_address(pixels: np.ndarray) -> str:
    """An image, uint8 (height, width, 3), reduced to `SIDE` pixels, as JPEG."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return _address("image/jpeg", buffer)


def audio_address(samples: np.ndarray, rate: int) -> str:
    """Audio, float (samples,) in [-1, 1], as 16-bit WAV, which every browser plays."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return _address("audio/wav", buffer)


def audio_of(item: SegmentedItem, rate: int) -> np.ndarray:
    """Audio of the item's windows one after another, float32 (samples,), at most `AUDIO_S`."""
    parts = [window.audio for window in item.windows if window.audio is not None]
    return np.concatenate([np.zeros(0, np.float32), *parts])[: round(AUDIO_S * rate)]


def frames_of(item: SegmentedItem, count: int = 4) -> list[Window]:
    """At most `count` windows that have an image, spread evenly over the item."""
    windows = [window for window in item.windows if window.image is not None]
    places = np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int)
    return [windows[place] for place in places]


def _address(kind: str, content: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
