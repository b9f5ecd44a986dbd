"""An item of the user as windows, the units that the encoders look at.

Item      a path, the bytes of a file, an image (PIL, or an array as below), or audio with its
          rate (`Audio`, or a tuple of the same two).
Image     uint8 (height, width, 3), RGB.
Audio     samples, (samples,) or (samples, channels), and their rate in Hz: floating point of full
          scale 1 (louder samples are clipped), or integers, whose full scale is their type's.
Window    up to one second of audio, an image, or both where they come from one video.

An image is one window; audio is one window per second; a video one window per second, each with
the frame from the middle of its second. Of a longer item `Limits.windows` windows are taken, evenly
spread, so that memory stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from PIL import Image

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.core.modality import (
    BLANK_CONTRAST,
    MODALITIES,
    SILENT_DBFS,
    WINDOW_SECONDS,
    Modality,
)
from anymodal.media import decoding
from anymodal.media.decoding import Kind
from anymodal.media.levels import contrast, rms_dbfs


class Audio(NamedTuple):
    """Samples, (samples,) or (samples, channels), with their rate in Hz."""

    samples: np.ndarray
    sample_rate: int


Item = str | Path | bytes | Image.Image | np.ndarray | Audio | tuple[np.ndarray, int]

FRAME_SIDE = 1024
"""Longer sides of video frames are reduced to this many pixels: many are held at once."""
_MIN_TAIL_S = 0.5
"""Shorter ends of longer audio give no window."""
_WHOLE = 2.0
"""Audio of up to this many times what its windows take is decoded whole."""
_MOST_CHANNELS = 64
"""More are samples: the axes are in the wrong order."""


@dataclass(frozen=True)
class Limits:
    """How much of an item is decoded."""

    windows: int = 60
    """At most."""
    hop_s: float = 1.0
    """Seconds from the start of one window to that of the next."""
    max_seconds: float = 4 * 3600.0
    """Longer audio and videos are refused."""

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise AnymodalError(f"windows must be at least 1, not {self.windows}")
        if not (math.isfinite(self.hop_s) and self.hop_s > 0):
            raise AnymodalError(f"hop_s must be more than 0 seconds, not {self.hop_s}")
        if not self.max_seconds > 0:
            raise AnymodalError(f"max_seconds must be more than 0, not {self.max_seconds}")


@dataclass(frozen=True)
class Window:
    """The audio and the image of one window; at least one of the two."""

    start_s: float
    """Seconds from the start of the item; 0 for an image."""
    seconds: float
    """Length of its audio, or of the stretch that its frame stands for; 0 for an image."""
    audio: np.ndarray | None = None
    """float32 (samples,), mono, at the rate asked for."""
    image: np.ndarray | None = None
    """uint8 (height, width, 3)."""

    def of(self, modality: Modality) -> np.ndarray | None:
        """Return its audio or its image."""
        return self.audio if modality == "audio" else self.image


@dataclass(frozen=True)
class SegmentedItem:
    """An item's windows."""

    item: str
    """Its path, or its type in angle brackets, such as `<bytes>`."""
    kind: Kind
    seconds: float
    """Length of the item; 0 for an image."""
    windows: tuple[Window, ...]

    def modalities(self) -> tuple[Modality, ...]:
        """Those that at least one window has."""
        return tuple(m for m in MODALITIES if any(w.of(m) is not None for w in self.windows))


def segment(item: Item, sample_rate: int, limits: Limits | None = None) -> SegmentedItem:
    """Return the windows of an item, with audio at `sample_rate` Hz.

    Raises `MediaError`, which names the item, where nothing can be decoded, and `AnymodalError`
    for what is not an item.
    """
    limits = limits or Limits()
    name = name_of(item)
    if isinstance(item, Image.Image):
        try:
            return _image(name, decoding.pixels(item))
        except MediaError as error:
            raise MediaError(f"{name}: {error}") from error
    if isinstance(item, np.ndarray):
        return _image(name, _checked_image(item))
    if isinstance(item, tuple):
        return _samples(name, item, sample_rate, limits)
    if not isinstance(item, str | Path | bytes | bytearray | memoryview):
        raise AnymodalError(
            f"an item is a path, bytes, an image, or audio with its rate, not {type(item).__name__}"
        )
    source = item if isinstance(item, str | Path) else bytes(item)
    return _file(source, name, sample_rate, limits)


def name_of(item: object) -> str:
    """Return what messages call an item."""
    if isinstance(item, str | Path):
        return str(item)
    if isinstance(item, Image.Image):
        return "<image>"
    if isinstance(item, tuple):
        return "<audio>"
    return "<array>" if isinstance(item, np.ndarray) else "<bytes>"


def is_blank(part: np.ndarray) -> bool:
    """Whether a window's audio, (samples,), is silent, or its image of one brightness."""
    return rms_dbfs(part) < SILENT_DBFS if part.ndim == 1 else contrast(part) < BLANK_CONTRAST


def starts(seconds: float, limits: Limits) -> np.ndarray:
    """Start times of the windows of an item of this length, float64 (windows,), in seconds.

    The first at 0, then one every `limits.hop_s` as long as a whole second follows, or half of one
    where windows do not overlap. Where that would be more than `limits.windows`, as many are spread
    evenly from the start to the last whole second.
    """
    least = _MIN_TAIL_S if limits.hop_s >= WINDOW_SECONDS else WINDOW_SECONDS
    # rounding aside: 3 s / 0.1 s is 30 hops
    count = math.floor(max(0.0, seconds - least) / limits.hop_s + 1e-6) + 1
    if count > limits.windows:
        return np.linspace(0.0, max(0.0, seconds - WINDOW_SECONDS), limits.windows)
    return np.arange(count) * limits.hop_s


def _image(name: str, image: np.ndarray) -> SegmentedItem:
    return SegmentedItem(name, "image", 0.0, (Window(0.0, 0.0, image=image),))


def _file(source: decoding.Source, name: str, rate: int, limits: Limits) -> SegmentedItem:
    kind = decoding.sniff(source)
    if kind == "image":
        return _image(name, decoding.load_image(source))
    video_s = audio_s = 0.0
    if kind == "video":
        video_s = _checked_length(name, decoding.video_duration(source), limits)
    try:
        audio_s = decoding.audio_duration(source)
    except MediaError:
        if kind == "audio":
            raise
    seconds = max(video_s, _checked_length(name, audio_s, limits))
    times = starts(seconds, limits).tolist()
    parts = _audio_at(source, audio_s, times, rate) if audio_s else {}
    windows = []
    for time in times:
        audio = parts.get(time)
        shown = min(WINDOW_SECONDS, max(0.0, video_s - time))
        frame = _frame(source, time + shown / 2) if shown else None
        if audio is not None or frame is not None:
            length = shown if audio is None else len(audio) / rate
            windows.append(Window(time, length, audio, frame))
    if not windows:
        raise MediaError(f"{name}: none of its {kind} can be decoded")
    return SegmentedItem(name, kind, seconds, tuple(windows))


def _samples(name: str, item: tuple, sample_rate: int, limits: Limits) -> SegmentedItem:
    if len(item) != 2 or not isinstance(item[1], int | np.integer):
        raise AnymodalError("audio is given as (samples, sample rate in Hz)")
    rate = int(item[1])
    if rate not in decoding.SAMPLE_RATES:
        raise AnymodalError(f"the sample rate must be 1,000 to 1,000,000 Hz, not {rate}")
    mono = _mono(item[0])
    seconds = _checked_length(name, len(mono) / rate, limits)
    new = soxr.resample(mono, rate, sample_rate) if rate != sample_rate else mono
    new = np.clip(new if len(new) else mono[:1], -1.0, 1.0)
    parts = _cut(new, starts(seconds, limits).tolist(), sample_rate)
    windows = [Window(time, len(part) / sample_rate, part) for time, part in parts.items()]
    return SegmentedItem(name, "audio", seconds, tuple(windows))


def _mono(samples: object) -> np.ndarray:
    """Mean of the channels, float32 (samples,), of samples as `Audio` has them."""
    try:
        array = np.asarray(samples)
    except (ValueError, TypeError) as error:
        raise AnymodalError(f"audio samples are no array: {error}") from error
    if array.ndim not in (1, 2) or not array.size or array.dtype.kind not in "fiu":
        raise AnymodalError(
            "audio samples must be numbers of shape (samples,) or (samples, channels), not "
            f"{array.dtype} of shape {array.shape}"
        )
    if array.ndim == 2 and array.shape[1] > _MOST_CHANNELS:
        raise AnymodalError(
            f"audio of {array.shape[1]} channels: its shape must be (samples, channels)"
        )
    full, middle = 1.0, 0.0
    if array.dtype.kind in "iu":
        full = 2.0 ** (8 * array.dtype.itemsize - 1)
        middle = full if array.dtype.kind == "u" else 0.0
    mono = array if array.ndim == 1 else array.mean(axis=1)
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        mono = ((mono - middle) / full).astype(np.float32)
    if not np.isfinite(mono).all():
        raise AnymodalError("audio samples must be finite")
    return mono


def _audio_at(
    source: decoding.Source, seconds: float, times: Sequence[float], rate: int
) -> dict[float, np.ndarray]:
    """Up to one second of a file's audio at each of `times`, where there is some."""
    # decoding it whole is faster; where little of it is needed, seeking bounds the memory
    if seconds <= _WHOLE * WINDOW_SECONDS * len(times):
        try:
            whole = decoding.load_audio(source, rate, 0.0, seconds + WINDOW_SECONDS)
        except MediaError:
            return {}
        return _cut(whole, times, rate)
    parts = {}
    for time in times:
        try:
            parts[time] = decoding.load_audio(source, rate, time, WINDOW_SECONDS)
        except MediaError:
            # damaged there, or shorter than its header says; the rest still counts
            continue
    return parts


def _cut(samples: np.ndarray, times: Sequence[float], rate: int) -> dict[float, np.ndarray]:
    size, least = round(WINDOW_SECONDS * rate), round(_MIN_TAIL_S * rate)
    parts: dict[float, np.ndarray] = {}
    for time in times:
        first = round(time * rate)
        part = samples[first : first + size]
        # the first may be short, if it is all there is
        if len(part) >= (least if parts else 1):
            parts[time] = part.copy()  # a view would keep the whole in memory
    return parts


def _frame(source: decoding.Source, at_s: float) -> np.ndarray | None:
    try:
        frame = decoding.load_frame(source, at_s)
    except MediaError:
        return None
    if max(frame.shape[:2]) <= FRAME_SIDE:
        return frame
    image = Image.fromarray(frame)
    image.thumbnail((FRAME_SIDE, FRAME_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _checked_length(name: str, seconds: float, limits: Limits) -> float:
    if seconds > limits.max_seconds:
        raise MediaError(
            f"{name}: lasts {seconds:,.0f} s, more than the {limits.max_seconds:,.0f} s allowed"
        )
    return seconds


def _checked_image(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise AnymodalError(
            f"an array is an image, uint8 (height, width, 3), not {array.dtype} of shape "
            f"{array.shape}; audio is given as (samples, sample rate)"
        )
    return array
