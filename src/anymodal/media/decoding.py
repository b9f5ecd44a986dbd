"""Decode media: a stretch of sound, a picture, one frame of a video.

Conventions
-----------
Source    a path, or the bytes of a file. What it holds is told by content, never by name. A path
          `<file>.tar!<member>` is that member (`anymodal.archive`).
Sound     float32 (samples,), mono (mean of the channels), within [-1, 1], at the rate asked for.
Picture   uint8 (height, width, 3), RGB, upright as its EXIF orientation or display matrix says.
Time      seconds from the start of the file; in a video, sound and picture share that clock.

Whatever cannot be decoded raises `MediaError`, whose one line names the file and the reason.
Nothing here follows references to other files or addresses, and no function keeps state, so they
may run in threads.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
import soundfile
import soxr
from PIL import Image, ImageOps, UnidentifiedImageError

from anymodal import archive, containers
from anymodal.errors import AnymodalError, MediaError

__all__ = [
    "MediaError",
    "audio_duration",
    "load_audio",
    "load_frame",
    "load_image",
    "pixels",
    "rgb",
    "sniff",
    "video_duration",
]

Source = str | Path | bytes
Kind = Literal["audio", "image", "video"]

MAX_PIXELS = 100_000_000
"""Larger pictures are refused unread: a small file can claim any size."""
SAMPLE_RATES = range(1_000, 1_000_001)
"""Hz that a sound may have; anything else is a damaged header."""

# also keeps out Pillow's readers that know a format by a byte or two, such as its MPEG one
_IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM", "ICO")
_BLOCK = 1 << 18
# the reach of soxr's filter at its HQ setting, in samples of the lower of the two rates, doubled
_RESAMPLER_CONTEXT = 512


def sniff(source: Source) -> Kind:
    """Tell what a file holds; pictures that move (GIF) are images, covers of songs are nothing.

    Raises `MediaError` for anything else, empty and missing files included.
    """
    with _opened(source) as file:
        try:
            _image_header(file)
        except _IMAGE_ERRORS:
            pass
        else:
            return "image"
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as sound:
                if sound.frames > 0:
                    return "audio"
        except soundfile.SoundFileError:
            pass
        with containers.reading(file) as streams:
            return streams.kind()


def load_audio(
    source: Source, sample_rate: int, start_s: float = 0.0, duration_s: float | None = 1.0
) -> np.ndarray:
    """Decode a stretch of the sound of an audio or video file.

    Parameters
    ----------
    source: path or bytes.
    sample_rate: Hz of the result.
    start_s: where to start, in seconds.
    duration_s: how much at most; None: all that follows.

    Returns
    -------
    float32 (n,), 1 <= n <= duration_s * sample_rate; shorter where the sound ends. The same
    samples as if the whole sound had been resampled and then cut.

    Raises
    ------
    MediaError: not decodable, no sound in it at `start_s`, or samples that are not finite.
    """
    if not (math.isfinite(start_s) and start_s >= 0):
        raise AnymodalError(f"start_s must be 0 or more seconds, not {start_s}")
    if duration_s is not None and not (math.isfinite(duration_s) and duration_s > 0):
        raise AnymodalError(f"duration_s must be more than 0 seconds, not {duration_s}")
    if sample_rate not in SAMPLE_RATES:
        raise AnymodalError(f"sample_rate must be 1,000 to 1,000,000 Hz, not {sample_rate}")
    first = round(start_s * sample_rate)
    # a hair is added because 0.1 * 16000 * 10 and its like may fall just short of a whole number
    count = None if duration_s is None else max(1, math.floor(duration_s * sample_rate + 1e-6))
    with _sound(source) as sound:
        samples = _resampled(sound, sample_rate, first, count)
        if not len(samples):
            raise MediaError(f"no sound at {start_s:g} s: it is empty or ends before")
        if not np.isfinite(samples).all():
            raise MediaError("holds samples that are not finite")
    return np.clip(samples, -1.0, 1.0)


def audio_duration(source: Source) -> float:
    """Seconds of sound in an audio or video file, as its header says or, failing that, counted."""
    with _sound(source) as sound:
        return sound.seconds()


def video_duration(source: Source) -> float:
    """Seconds of moving picture in a film: from its start to the end of its last frame.

    Raises `MediaError` if there is no video, or it is damaged.
    """
    with _opened(source) as file, containers.reading(file) as streams:
        return streams.seconds()


def load_image(source: Source) -> np.ndarray:
    """Decode a picture; of a moving one the first frame. Transparent parts become white.

    Raises `MediaError` if it is not a picture, damaged, or of more than `MAX_PIXELS` pixels.
    """
    with _opened(source) as file:
        try:
            image = _image_header(file)
        except _IMAGE_ERRORS as error:
            raise MediaError(_reason(error, "not a picture that can be decoded")) from error
        return pixels(image)


def load_frame(source: Source, at_s: float = 0.0) -> np.ndarray:
    """Decode the video frame that is on display `at_s` seconds into the file.

    Before the first frame that is the first, and for up to a second after the last the last.

    Raises `MediaError` if there is no video, it is damaged, or it ends before `at_s`.
    """
    if not (math.isfinite(at_s) and at_s >= 0):
        raise AnymodalError(f"at_s must be 0 or more seconds, not {at_s}")
    with _opened(source) as file, containers.reading(file) as streams:
        return streams.frame(at_s, MAX_PIXELS)


class _Sound(Protocol):
    """A decoder of sound."""

    rate: int

    def read(self, begin: int, end: int | None) -> np.ndarray:
        """Mono float32 samples [begin, end) of the file's own rate, fewer where it ends."""
        ...

    def seconds(self) -> float:
        """Length of the sound."""
        ...


class _FileSound:
    """Sound that libsndfile reads."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        self.rate = file.samplerate
        self._file = file

    def read(self, begin: int, end: int | None) -> np.ndarray:
        if begin >= self._file.frames:
            return np.zeros(0, np.float32)
        # MP3 frames borrow bits from those before, further back than the decoder looks by itself
        lead = min(begin, self.rate) if self._file.format == "MP3" else 0
        self._file.seek(begin - lead)
        return _concatenated(self._blocks(begin - lead, end))[lead:]

    def seconds(self) -> float:
        # a stream that was never closed properly claims the largest length there is
        frames = self._file.frames
        if frames >= 1 << 48:
            frames = sum(len(block) for block in self._blocks(0, None))
        return frames / self.rate

    def _blocks(self, at: int, end: int | None) -> Iterator[np.ndarray]:
        while end is None or at < end:
            wanted = _BLOCK if end is None else min(_BLOCK, end - at)
            block = self._file.read(wanted, dtype="float32", always_2d=True)
            if not len(block):
                return
            at += len(block)
            yield block.mean(axis=1)


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    """The source as a seekable file; `MediaError`s of the block get its name put in front."""
    if isinstance(source, bytes | bytearray | memoryview):
        label = f"{len(source)} bytes of media"
        file: BinaryIO = io.BytesIO(source)
        empty = not len(source)
    elif isinstance(source, str | Path) and archive.is_member(source):
        content = archive.read_member(source)
        label, file, empty = str(source), io.BytesIO(content), not content
    elif isinstance(source, str | Path):
        path = Path(source)
        label = str(path)
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise MediaError(f"{label}: {what}")
        try:
            file, empty = _Nameless(io.FileIO(path)), path.stat().st_size == 0
        except OSError as error:
            raise MediaError(f"{label}: {error.strerror}") from error
    else:
        raise AnymodalError(f"media must be a path or bytes, not {type(source).__name__}")
    with file:
        if empty:
            raise MediaError(f"{label}: is empty")
        try:
            yield file
        except MediaError as error:
            raise MediaError(f"{label}: {error}") from error


class _Nameless(io.BufferedReader):
    """A file whose name the decoders do not see, so that they go by content."""

    name = ""  # type: ignore[assignment]


@contextmanager
def _sound(source: Source) -> Iterator[_Sound]:
    """The decoder for a source: libsndfile, or FFmpeg for what that cannot read."""
    with _opened(source) as file:
        try:
            try:
                sound = soundfile.SoundFile(file)
            except soundfile.SoundFileError:
                file.seek(0)
                with containers.reading(file) as streams:
                    yield _plausible(streams.sound())
            else:
                with sound:
                    yield _plausible(_FileSound(sound))
        except soundfile.SoundFileError as error:
            raise MediaError(_reason(error, "damaged sound")) from error


def _plausible(sound: _Sound) -> _Sound:
    if sound.rate not in SAMPLE_RATES:
        raise MediaError(f"claims a sample rate of {sound.rate} Hz")
    return sound


def _resampled(sound: _Sound, rate: int, first: int, count: int | None) -> np.ndarray:
    """Samples [first, first + count) of the sound at `rate`."""
    if sound.rate == rate:
        return sound.read(first, None if count is None else first + count)
    # start where a sample of the old rate and one of the new coincide, so that the grid of the
    # new rate is that of the whole file
    common = math.gcd(sound.rate, rate)
    step_in, step_out = sound.rate // common, rate // common
    context = math.ceil(_RESAMPLER_CONTEXT * sound.rate / min(sound.rate, rate))
    steps = max(0, (first * step_in // step_out - context) // step_in)
    end = None if count is None else -(-(first + count) * step_in // step_out) + context
    raw = sound.read(steps * step_in, end)
    new = soxr.resample(raw, sound.rate, rate) if len(raw) else raw
    if len(raw) and not len(new):
        new = raw[:1]  # less than half a sample of the new rate
    skip = first - steps * step_out
    return new[skip:] if count is None else new[skip : skip + count]


def _concatenated(blocks: Iterator[np.ndarray]) -> np.ndarray:
    parts = list(blocks)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


_IMAGE_ERRORS = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    OverflowError,
    MemoryError,
    struct.error,
)
"""What Pillow raises on damaged files, by experience."""


def _image_header(file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file, formats=_IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        # Pillow's own limit lies above ours; passed over, FFmpeg would try, and say less
        raise MediaError(f"its pixels are more than {MAX_PIXELS:,}") from error
    _check_size(image)
    return image


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")
    if not image.width * image.height:
        raise MediaError(f"{image.width} × {image.height} pixels are none")


def pixels(image: Image.Image) -> np.ndarray:
    """`rgb` of a Pillow picture, decoded and turned as its EXIF orientation says.

    Raises `MediaError` if it is damaged, empty, or of more than `MAX_PIXELS` pixels.
    """
    _check_size(image)
    try:
        image.load()
    except _IMAGE_ERRORS as error:
        raise MediaError(_reason(error, "not a picture that can be decoded")) from error
    try:
        image = ImageOps.exif_transpose(image)
    except (*_IMAGE_ERRORS, KeyError, TypeError):
        pass  # the pixels are whole; only the note on which way is up is damaged
    return rgb(image)


def rgb(image: Image.Image) -> np.ndarray:
    """Pixels of a Pillow picture as uint8 (height, width, 3); transparent parts become white.

    Raises `MediaError` for a mode that has no defined colours.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip these to 255; such files hold 16 bits whatever the mode says
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise MediaError("pictures with floating-point pixels have no defined brightness")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
        return np.array(image.convert("RGB"))
    except _IMAGE_ERRORS as error:
        raise MediaError(_reason(error, f"cannot turn {image.mode} into RGB")) from error


def _reason(error: Exception, what: str) -> str:
    if isinstance(error, MediaError | UnidentifiedImageError):
        return str(error) if isinstance(error, MediaError) else what
    detail = " ".join(str(error).split())
    return f"{what} ({detail})" if detail else what
