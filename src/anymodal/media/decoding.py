"""Decode media: a stretch of audio, an image, one frame of a video.

Conventions
-----------
Source    a path, or the bytes of a file; its kind is found by content, never by name. A path
          `<file>.tar!<member>` is that member (`anymodal.core.archive`).
Audio     float32 (samples,), mono (mean of the channels), within [-1, 1], at the rate asked for.
Image     uint8 (height, width, 3), RGB, upright as its EXIF orientation or display matrix says.
Time      seconds from the start of the file; in a video, audio and image share that clock.

Whatever cannot be decoded raises `MediaError`, whose one line names the file and the reason.
References to other files or addresses are not followed. All functions are safe to use from threads.
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

from anymodal.core import archive
from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media import containers

Source = str | Path | bytes
Kind = Literal["audio", "image", "video"]

MAX_PIXELS = 100_000_000
"""Larger images are refused unread: a small file can claim any size."""
SAMPLE_RATES = range(1_000, 1_000_001)
"""Sample rates in Hz that audio may have; any other is a damaged header."""

# also keeps out Pillow's readers that know a format by a byte or two, such as its MPEG one
_IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM", "ICO")
_IMAGE_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError, MemoryError),
    *(struct.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""What Pillow is known to raise on damaged files."""
_BLOCK = 1 << 18
# the reach of soxr's filter at its HQ setting, in samples of the lower of the two rates, doubled
_RESAMPLER_CONTEXT = 512


def sniff(source: Source) -> Kind:
    """Return the kind of a file; animations (GIF) are images, covers of songs do not count.

    Raises `MediaError` for anything else, empty and missing files included.
    """
    with _opened(source) as file:
        try:
            _image_header(file)
        except _IMAGE_ERRORS:
            file.seek(0)
        else:
            return "image"
        try:
            with soundfile.SoundFile(file) as audio:
                if audio.frames > 0:
                    return "audio"
        except soundfile.SoundFileError:
            pass
        with containers.reading(file) as streams:
            return streams.kind()


def load_audio(
    source: Source, sample_rate: int, start_s: float = 0.0, duration_s: float | None = 1.0
) -> np.ndarray:
    """Decode the audio of a file from `start_s` on, at `sample_rate` Hz.

    Returns float32 (n,) with 1 <= n <= duration_s * sample_rate, fewer where the audio ends, all
    that follows if `duration_s` is None: the same samples as if the whole had been resampled and
    then cut. Raises `MediaError` if there is no audio at `start_s`, it cannot be decoded, or its
    samples are not finite.
    """
    if not (math.isfinite(start_s) and start_s >= 0):
        raise AnymodalError(f"start_s must be 0 or more seconds, not {start_s}")
    if duration_s is not None and not (math.isfinite(duration_s) and duration_s > 0):
        raise AnymodalError(f"duration_s must be more than 0 seconds, not {duration_s}")
    if sample_rate not in SAMPLE_RATES:
        raise AnymodalError(f"sample_rate must be 1,000 to 1,000,000 Hz, not {sample_rate}")
    first = round(start_s * sample_rate)
    # 1e-6, because 0.1 * 16000 * 10 and its like may fall just short of a whole number
    count = None if duration_s is None else max(1, math.floor(duration_s * sample_rate + 1e-6))
    with _audio_reader(source) as reader:
        samples = _resampled(reader, sample_rate, first, count)
        if not len(samples):
            raise MediaError(f"no audio at {start_s:g} s: it is empty or ends before")
        if not np.isfinite(samples).all():
            raise MediaError("holds samples that are not finite")
    return np.clip(samples, -1.0, 1.0)


def audio_duration(source: Source) -> float:
    """Seconds of audio in a file, as its header says or, failing that, counted."""
    with _audio_reader(source) as reader:
        return reader.seconds()


def video_duration(source: Source) -> float:
    """Seconds from the start of a video file to the end of its last frame.

    Raises `MediaError` if there is no video, or it is damaged.
    """
    with _opened(source) as file, containers.reading(file) as streams:
        return streams.seconds()


def load_image(source: Source) -> np.ndarray:
    """Decode an image, of an animation the first frame. Transparent parts become white.

    Raises `MediaError` if it is not an image, damaged, or of more than `MAX_PIXELS` pixels.
    """
    with _opened(source) as file:
        try:
            image = _image_header(file)
        except _IMAGE_ERRORS as error:
            raise MediaError(_reason(error, "not an image that can be decoded")) from error
        return pixels(image)


def load_frame(source: Source, at_s: float = 0.0) -> np.ndarray:
    """Decode the video frame that is on display `at_s` seconds into the file.

    Before the first frame that is the first, for up to a second after the last frame the last.
    Raises `MediaError` if there is no video, it is damaged, or it ends before `at_s`.
    """
    if not (math.isfinite(at_s) and at_s >= 0):
        raise AnymodalError(f"at_s must be 0 or more seconds, not {at_s}")
    with _opened(source) as file, containers.reading(file) as streams:
        return streams.frame(at_s, MAX_PIXELS)


def pixels(image: Image.Image) -> np.ndarray:
    """`rgb` of a PIL image, decoded and turned upright as its EXIF orientation says.

    Raises `MediaError` if it is damaged, empty, or of more than `MAX_PIXELS` pixels.
    """
    _check_size(image)
    try:
        image.load()
    except _IMAGE_ERRORS as error:
        raise MediaError(_reason(error, "not an image that can be decoded")) from error
    try:
        image = ImageOps.exif_transpose(image)
    except (*_IMAGE_ERRORS, KeyError, TypeError):
        pass  # only the orientation is damaged, the pixels are whole
    return rgb(image)


def rgb(image: Image.Image) -> np.ndarray:
    """Pixels of a PIL image as uint8 (height, width, 3); transparent parts become white.

    Raises `MediaError` for a mode without defined colours.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip these to 255; such files hold 16 bits whatever the mode says
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise MediaError("images with floating-point pixels have no defined brightness")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
        return np.array(image.convert("RGB"))
    except _IMAGE_ERRORS as error:
        raise MediaError(_reason(error, f"cannot turn {image.mode} into RGB")) from error


class _AudioReader(Protocol):
    rate: int

    def read(self, begin: int, end: int | None) -> np.ndarray:
        """Mono float32 samples [begin, end) of the file's own rate, fewer where it ends."""
        ...

    def seconds(self) -> float: ...


class _SoundFileReader:
    """Audio that libsndfile decodes."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        self.rate = file.samplerate
        self._file = file

    def read(self, begin: int, end: int | None) -> np.ndarray:
        if begin >= self._file.frames:
            return np.zeros(0, np.float32)
        # MP3 frames borrow bits from those before, further back than the decoder looks by itself
        lead = min(begin, self.rate) if self._file.format == "MP3" else 0
        self._file.seek(begin - lead)
        blocks = [np.zeros(0, np.float32), *self._blocks(begin - lead, end)]
        return np.concatenate(blocks)[lead:]

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


class _Nameless(io.BufferedReader):
    """A file whose name the decoders do not see, so that they go by content."""

    name = ""  # type: ignore[assignment]


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    """The source as a seekable file; its name is put in front of the block's `MediaError`s."""
    content: bytes | None = None
    if isinstance(source, bytes | bytearray | memoryview):
        label, content = f"{len(source)} bytes of media", bytes(source)
    elif isinstance(source, str | Path):
        label = str(source)
        if archive.is_member(source):
            content = archive.read_member(source)
    else:
        raise AnymodalError(f"media must be a path or bytes, not {type(source).__name__}")
    try:
        with _open_path(Path(label)) if content is None else io.BytesIO(content) as file:
            if not file.seek(0, io.SEEK_END):
                raise MediaError("is empty")
            file.seek(0)
            yield file
    except MediaError as error:
        raise MediaError(f"{label}: {error}") from error


def _open_path(path: Path) -> BinaryIO:
    if not path.is_file():
        raise MediaError("is not a file" if path.exists() else "does not exist")
    try:
        return _Nameless(io.FileIO(path))
    except OSError as error:
        raise MediaError(str(error.strerror)) from error


@contextmanager
def _audio_reader(source: Source) -> Iterator[_AudioReader]:
    """The decoder for a source: libsndfile, or FFmpeg for what that cannot read."""
    with _opened(source) as file:
        try:
            try:
                opened = soundfile.SoundFile(file)
            except soundfile.SoundFileError:
                file.seek(0)
                with containers.reading(file) as streams:
                    yield _plausible(streams.audio())
            else:
                with opened:
                    yield _plausible(_SoundFileReader(opened))
        except soundfile.SoundFileError as error:
            raise MediaError(_reason(error, "damaged audio")) from error


def _plausible(reader: _AudioReader) -> _AudioReader:
    if reader.rate not in SAMPLE_RATES:
        raise MediaError(f"claims a sample rate of {reader.rate} Hz")
    return reader


def _resampled(reader: _AudioReader, rate: int, first: int, count: int | None) -> np.ndarray:
    """Samples [first, first + count) of the audio at `rate`."""
    if reader.rate == rate:
        return reader.read(first, None if count is None else first + count)
    # start where a sample of the old rate and one of the new coincide, so that the grid of the
    # new rate is that of the whole file
    common = math.gcd(reader.rate, rate)
    step_in, step_out = reader.rate // common, rate // common
    context = math.ceil(_RESAMPLER_CONTEXT * reader.rate / min(reader.rate, rate))
    steps = max(0, (first * step_in // step_out - context) // step_in)
    end = None if count is None else -(-(first + count) * step_in // step_out) + context
    raw = reader.read(steps * step_in, end)
    new = soxr.resample(raw, reader.rate, rate) if len(raw) else raw
    if len(raw) and not len(new):
        new = raw[:1]  # less than half a sample of the new rate
    skip = first - steps * step_out
    return new[skip:] if count is None else new[skip : skip + count]


def _image_header(file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file, formats=_IMAGE_FORMATS)
    except Image.DecompressionBombError as error:
        # Pillow's own limit lies above ours; without this, FFmpeg would try next, and say less
        raise MediaError(f"its pixels are more than {MAX_PIXELS:,}") from error
    _check_size(image)
    return image


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")
    if not image.width * image.height:
        raise MediaError(f"{image.width} × {image.height} pixels are none")


def _reason(error: Exception, what: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return what
    detail = " ".join(str(error).split())
    return f"{what} ({detail})" if detail else what
