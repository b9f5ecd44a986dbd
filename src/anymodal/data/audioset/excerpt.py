"""A clip's two files, one FLAC and one JPEG, from the cut that holds its second."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image, ImageOps

from anymodal.core.errors import MediaError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.data.audioset.ffmpeg import SAMPLE_RATE
from anymodal.data.audioset.status import FetchError, Status
from anymodal.media import decoding

_SHORT = "shorter than the wanted second"
_ROUNDING = SAMPLE_RATE // 1000
_LATE_S = 0.1
"""Audio may start this much after the video, as encoders do it; silence fills the gap."""


@dataclass(frozen=True)
class Excerpt:
    """One clip's media: a second of audio, 48 kHz, mono, 16 bits, and one RGB frame."""

    flac: bytes
    jpg: bytes
    width: int
    height: int

    @property
    def clip_id(self) -> str:
        """First 16 hex digits of SHA-256 over both files."""
        return content_id(self.flac, self.jpg)


def content_id(flac: bytes, jpg: bytes) -> str:
    """The clip id of a pair of files."""
    return hashlib.sha256(flac + jpg).hexdigest()[:16]


def excerpt(
    path: Path, frame_s: float, *, jpeg_quality: int = 92, short_side: int = 256
) -> Excerpt:
    """The first second of the media file `path` and its frame at `frame_s` (0 to below 1).

    A frame whose short side exceeds `short_side` pixels is reduced to it; smaller ones stay. Raises
    `FetchError` (broken) if the file lacks audio or image, or is too short.
    """
    try:
        audio = _second(path)
        pixels = decoding.load_frame(path, frame_s)
    except (MediaError, av.FFmpegError) as error:
        # the cut is ours: its name says nothing, the reason after it does
        reason = str(error).removeprefix(f"{path}: ")
        raise FetchError(Status.BROKEN, f"{_SHORT} ({reason})") from error
    image = Image.fromarray(pixels)
    if min(image.size) > short_side:
        image = ImageOps.cover(image, (short_side, short_side), Image.Resampling.LANCZOS)
    jpg = io.BytesIO()
    image.save(jpg, format="JPEG", quality=jpeg_quality)
    flac = io.BytesIO()
    whole = np.clip(np.round(audio * 32768.0), -32768, 32767).astype(np.int16)
    soundfile.write(flac, whole, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return Excerpt(flac.getvalue(), jpg.getvalue(), image.width, image.height)


def _second(path: Path) -> np.ndarray:
    """The audio of a cut, float32 (48000,)."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise FetchError(Status.BROKEN, f"{_SHORT}: no audio")
        if not any(packet.size for packet in container.demux(video=0)):
            raise FetchError(Status.BROKEN, f"{_SHORT}: its images end before")
        stream = container.streams.audio[0]
        late = float((stream.start_time or 0) * (stream.time_base or 0))
    audio = decoding.load_audio(path, SAMPLE_RATE, 0.0, None)
    samples = round(WINDOW_SECONDS * SAMPLE_RATE)
    lacking = samples - len(audio)
    if late > _LATE_S:
        raise FetchError(Status.BROKEN, f"{_SHORT}: its audio starts {late:.3f} s late")
    if late > 0 and abs(lacking) <= _ROUNDING:
        # it lasts to the end; that a container's clock ticks in milliseconds moved its start
        audio = np.pad(audio, (lacking, 0)) if lacking > 0 else audio[-lacking:]
    elif lacking > 0:
        raise FetchError(Status.BROKEN, f"{_SHORT}: its audio lacks {lacking / SAMPLE_RATE:.3f} s")
    return audio[:samples]
