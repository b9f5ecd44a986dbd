"""What a user hands over, taken apart into the moments that the encoders look at.

Item      a path, the bytes of a file, a picture (PIL, or an array as below), or a sound with its
          rate (`Sound`, or a tuple of the same two).
Picture   uint8 (height, width, 3), RGB.
Sound     samples, (samples,) or (samples, channels), and their rate in Hz: floating point of full
          scale 1 (what is louder is clipped), or integers, of which full scale is their type's.
Moment    up to one second of sound, a picture, or both where they are of one film.

A still picture is one moment, a sound one for each of its seconds, a film one for each second with
the frame from the middle of it. Of what has more than `Limits.moments`, as many are taken, spread
evenly: memory stays bounded, however long it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soxr
from PIL import Image

from anymodal import media
from anymodal.encoders.base import MODALITIES, WINDOW_SECONDS, Modality
from anymodal.errors import AnymodalError, MediaError


class Sound(NamedTuple):
    """Samples, (samples,) or (samples, channels), with their rate in Hz."""

    samples: np.ndarray
    sample_rate: int


Item = str | Path | bytes | Image.Image | np.ndarray | Sound | tuple[np.ndarray, int]
Kind = Literal["audio", "image", "video"]

FRAME_SIDE = 1024
"""Longer sides of film frames are reduced to this, in pixels: many are held at once."""
_MIN_TAIL_S = 0.5
"""A rest shorter than this, at the end of a longer sound, is no moment of its own."""
_WHOLE = 2.0
"""A sound of up to this many times what its moments take is decoded whole."""
_MOST_CHANNELS = 64
"""More are samples: the axes are in the wrong order."""
SILENT_DBFS = -60.0
"""Sound of a lower level (root mean square, in decibels of full scale) says nothing."""
BLANK_CONTRAST = 2.0
"""A picture whose brightness deviates less (standard deviation, of 255) shows nothing."""


@dataclass(frozen=True)
class Limits:
    """How much of an item is looked at."""

    moments: int = 60
    """At most."""
    hop_s: float = 1.0
    """Seconds from the start of one moment to that of the next."""
    max_seconds: float = 4 * 3600.0
    """Longer sounds and films are refused."""

    def __post_init__(self) -> None:
        if self.moments < 1:
            raise AnymodalError(f"at least one moment must be looked at, not {self.moments}")
        if not (math.isfinite(self.hop_s) and self.hop_s > 0):
            raise AnymodalError(f"moments must be more than 0 s apart, not {self.hop_s}")
        if not self.max_seconds > 0:
            raise AnymodalError(f"items must be allowed to last some time, not {self.max_seconds}")


@dataclass(frozen=True)
class Moment:
    """What the encoders get of one moment; at least one of the two."""

    start_s: float
    """Seconds from the start of the item; 0 for a picture."""
    seconds: float
    """Length of its sound, or of the stretch that its frame stands for; 0 for a still picture."""
    audio: np.ndarray | None = None
    """float32 (samples,), mono, at the rate that was asked for."""
    image: np.ndarray | None = None
    """uint8 (height, width, 3)."""

    def of(self, modality: Modality) -> np.ndarray | None:
        """Its sound or its picture."""
        return self.audio if modality == "audio" else self.image


@dataclass(frozen=True)
class Moments:
    """An item taken apart."""

    item: str
    """Its path, or what it was in angle brackets, such as `<bytes>`."""
    kind: Kind
    seconds: float
    """Length of the item; 0 for a still picture."""
    moments: tuple[Moment, ...]

    def modalities(self) -> tuple[Modality, ...]:
        """Those that at least one moment has."""
        return tuple(m for m in MODALITIES if any(one.of(m) is not None for one in self.moments))


def take_apart(item: Item, sample_rate: int, limits: Limits | None = None) -> Moments:
    """The moments of an item; its sound at `sample_rate` Hz.

    Raises `MediaError`, which names the item, where nothing can be decoded, and `AnymodalError`
    for what is no item.
    """
    limits = limits or Limits()
    if isinstance(item, Image.Image):
        return _still("<picture>", _decoded_picture(item))
    if isinstance(item, np.ndarray):
        return _still("<array>", _checked_picture(item))
    if isinstance(item, tuple):
        return _of_sound(item, sample_rate, limits)
    if not isinstance(item, str | Path | bytes | bytearray | memoryview):
        raise AnymodalError(
            f"an item is a path, bytes, a picture, or a sound with its rate, not "
            f"{type(item).__name__}"
        )
    source = item if isinstance(item, str | Path) else bytes(item)
    name = str(item) if isinstance(item, str | Path) else "<bytes>"
    kind = media.sniff(source)
    if kind == "image":
        return _still(name, media.load_image(source))
    if kind == "audio":
        return _sounding(source, name, media.audio_duration(source), sample_rate, limits)
    return _film(source, name, sample_rate, limits)


def name_of(item: object) -> str:
    """What `take_apart` calls an item, for messages."""
    if isinstance(item, str | Path):
        return str(item)
    if isinstance(item, Image.Image):
        return "<picture>"
    if isinstance(item, tuple):
        return "<sound>"
    return "<array>" if isinstance(item, np.ndarray) else "<bytes>"


def is_blank(part: np.ndarray) -> bool:
    """Whether a moment's sound is silence, or its picture of one brightness all over."""
    if part.ndim == 1:
        level = float(np.sqrt(np.mean(part.astype(np.float64) ** 2))) if len(part) else 0.0
        return level < 10 ** (SILENT_DBFS / 20)
    # float32: photographs are large
    return float(part.mean(axis=2, dtype=np.float32).std()) < BLANK_CONTRAST


def starts(seconds: float, limits: Limits) -> np.ndarray:
    """When the moments of something of this length begin: float64 (moments,), in seconds.

    The first at 0, then one every `limits.hop_s` as long as a whole second follows, or half of one
    where moments do not overlap. Where that would be more than `limits.moments`, as many are spread
    evenly from the start to the last whole second.
    """
    least = _MIN_TAIL_S if limits.hop_s >= WINDOW_SECONDS else WINDOW_SECONDS
    # rounding aside: 3 s / 0.1 s is 30 hops
    count = math.floor(max(0.0, seconds - least) / limits.hop_s + 1e-6) + 1
    if count > limits.moments:
        return np.linspace(0.0, max(0.0, seconds - WINDOW_SECONDS), limits.moments)
    return np.arange(count) * limits.hop_s


def _still(name: str, picture: np.ndarray) -> Moments:
    return Moments(name, "image", 0.0, (Moment(0.0, 0.0, image=picture),))


def _of_sound(item: tuple, sample_rate: int, limits: Limits) -> Moments:
    if len(item) != 2 or not isinstance(item[1], int | np.integer):
        raise AnymodalError("a sound is given as (samples, sample rate in Hz)")
    rate = int(item[1])
    if rate not in media.SAMPLE_RATES:
        raise AnymodalError(f"a sound's rate must be 1,000 to 1,000,000 Hz, not {rate}")
    mono = _mono(item[0])
    seconds = len(mono) / rate
    _check_length("<sound>", seconds, limits)
    new = soxr.resample(mono, rate, sample_rate) if rate != sample_rate else mono
    new = np.clip(new if len(new) else mono[:1], -1.0, 1.0)
    times = starts(seconds, limits).tolist()
    found = _moments(_parts(new, times, sample_rate), sample_rate)
    return Moments("<sound>", "audio", seconds, found)


def _mono(given: object) -> np.ndarray:
    """Mean of the channels, float32 (samples,), of samples as `Sound` has them."""
    try:
        samples = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise AnymodalError(f"a sound's samples are no array: {error}") from error
    if samples.ndim not in (1, 2) or not samples.size or samples.dtype.kind not in "fiu":
        raise AnymodalError(
            "a sound's samples must be numbers of shape (samples,) or (samples, channels), not "
            f"{samples.dtype} of shape {samples.shape}"
        )
    if samples.ndim == 2 and samples.shape[1] > _MOST_CHANNELS:
        raise AnymodalError(
            f"a sound of {samples.shape[1]} channels: its shape must be (samples, channels)"
        )
    full, middle = 1.0, 0.0
    if samples.dtype.kind in "iu":
        full = 2.0 ** (8 * samples.dtype.itemsize - 1)
        middle = full if samples.dtype.kind == "u" else 0.0
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    with np.errstate(over="ignore"):  # becomes infinite, which is told below
        mono = ((mono - middle) / full).astype(np.float32)
    if not np.isfinite(mono).all():
        raise AnymodalError("a sound's samples must be finite")
    return mono


def _moments(heard: Mapping[float, np.ndarray], rate: int) -> tuple[Moment, ...]:
    return tuple(Moment(time, len(part) / rate, audio=part) for time, part in heard.items())


def _sounding(
    source: media.Source, name: str, seconds: float, rate: int, limits: Limits
) -> Moments:
    _check_length(name, seconds, limits)
    heard = _heard(source, seconds, starts(seconds, limits).tolist(), rate)
    if not heard:
        raise MediaError(f"{name}: none of its sound can be decoded")
    return Moments(name, "audio", seconds, _moments(heard, rate))


def _film(source: media.Source, name: str, rate: int, limits: Limits) -> Moments:
    of_picture = media.video_duration(source)
    _check_length(name, of_picture, limits)
    try:
        of_sound = media.audio_duration(source)
    except MediaError:
        of_sound = 0.0
    _check_length(name, of_sound, limits)
    seconds = max(of_picture, of_sound)
    times = starts(seconds, limits).tolist()
    heard = _heard(source, of_sound, times, rate) if of_sound else {}
    found = []
    for time in times:
        sound = heard.get(time)
        shown = min(WINDOW_SECONDS, max(0.0, of_picture - time))
        frame = _frame(source, time + shown / 2) if shown else None
        if sound is not None or frame is not None:
            length = shown if sound is None else len(sound) / rate
            found.append(Moment(time, length, sound, frame))
    if not found:
        raise MediaError(f"{name}: neither sound nor picture can be decoded")
    return Moments(name, "video", seconds, tuple(found))


def _heard(
    source: media.Source, seconds: float, times: Sequence[float], rate: int
) -> dict[float, np.ndarray]:
    """One second of a file's sound at each of `times`, where it has some."""
    # decoding it whole is faster; where little of it is wanted, seeking in it bounds the memory
    if seconds <= _WHOLE * WINDOW_SECONDS * len(times):
        try:
            whole = media.load_audio(source, rate, 0.0, seconds + WINDOW_SECONDS)
        except MediaError:
            return {}
        return _parts(whole, times, rate)
    found = {}
    for time in times:
        try:
            found[time] = media.load_audio(source, rate, time, WINDOW_SECONDS)
        except MediaError:
            # damaged there, or shorter than its header says; what is whole still counts
            continue
    return found


def _parts(samples: np.ndarray, times: Sequence[float], rate: int) -> dict[float, np.ndarray]:
    size, least = round(WINDOW_SECONDS * rate), round(_MIN_TAIL_S * rate)
    found: dict[float, np.ndarray] = {}
    for time in times:
        first = round(time * rate)
        part = samples[first : first + size]
        # a scrap at the end says nothing, unless it is all there is
        if len(part) >= (least if found else 1):
            found[time] = part.copy()  # a view would keep the whole sound
    return found


def _frame(source: media.Source, at_s: float) -> np.ndarray | None:
    try:
        frame = media.load_frame(source, at_s)
    except MediaError:
        return None
    if max(frame.shape[:2]) <= FRAME_SIDE:
        return frame
    image = Image.fromarray(frame)
    image.thumbnail((FRAME_SIDE, FRAME_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _check_length(name: str, seconds: float, limits: Limits) -> None:
    if seconds > limits.max_seconds:
        raise MediaError(
            f"{name}: lasts {seconds:,.0f} s, more than the {limits.max_seconds:,.0f} s allowed"
        )


def _decoded_picture(image: Image.Image) -> np.ndarray:
    try:
        return media.pixels(image)
    except MediaError as error:
        raise MediaError(f"<picture>: {error}") from error


def _checked_picture(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise AnymodalError(
            "an array is taken for a picture, uint8 (height, width, 3), and is "
            f"{array.dtype} of shape {array.shape}; a sound is given as (samples, sample rate)"
        )
    return array
