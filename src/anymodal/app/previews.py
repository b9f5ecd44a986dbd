"""Sounds and pictures as `data:` addresses, small enough to be part of a page.

What is shown is made from what was decoded, never a file as it came.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import soundfile
from PIL import Image

from anymodal.items import Moment, Moments

SIDE = 360
"""Longer side of a picture, in pixels."""
HEARD_S = 15.0
"""Seconds of an item that can be played back, at most."""


def picture_address(pixels: np.ndarray, side: int = SIDE) -> str:
    """A picture, uint8 (height, width, 3), reduced to `side` pixels and as JPEG."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return _address("image/jpeg", buffer.getvalue())


def sound_address(samples: np.ndarray, rate: int) -> str:
    """A sound, float (samples,) in [-1, 1], as WAV of 16 bits: every browser plays that."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return _address("audio/wav", buffer.getvalue())


def heard(item: Moments, rate: int) -> np.ndarray:
    """The beginning of what was heard of an item: its moments' sound, float32 (samples,), one after
    another without what lies between them, at most `HEARD_S` seconds."""
    parts = [moment.audio for moment in item.moments if moment.audio is not None]
    most = round(HEARD_S * rate)
    return np.concatenate(parts[: int(HEARD_S) + 1])[:most] if parts else np.zeros(0, np.float32)


def seen(item: Moments, most: int = 4) -> list[Moment]:
    """Moments with a picture, at most `most`, spread evenly over the item."""
    found = [moment for moment in item.moments if moment.image is not None]
    if len(found) <= most:
        return found
    return [found[place] for place in _even(len(found), most)]


def _even(count: int, most: int) -> Sequence[int]:
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
