"""Media files with known content, made in memory."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from PIL import Image

from helpers.videos import write_video


def tone(rate: int, seconds: float, hz: float = 440.0, channels: int = 1) -> np.ndarray:
    """A sine of amplitude 0.5, one column a channel."""
    time = np.arange(round(rate * seconds)) / rate
    return np.repeat(0.5 * np.sin(2 * np.pi * hz * time)[:, None], channels, axis=1)


def encoded_audio(samples: np.ndarray, rate: int, **options: str) -> bytes:
    buffer = io.BytesIO()
    options.setdefault("format", "WAV")
    soundfile.write(buffer, samples, rate, **options)
    return buffer.getvalue()


def encoded_image(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded_video(
    kind: str = "mp4",
    codec: str = "mpeg4",
    audio: tuple[str, np.ndarray, int] | None = None,
    frames: int = 50,
    rate: int = 10,
    late: int = 0,
) -> bytes:
    """Frame k is grey of value 5 k; `audio` is (codec, mono samples, Hz); `late` frames are
    left out at the start."""
    audio_codec, samples, sample_rate = audio or ("aac", None, 0)
    grey = ((k, np.full((48, 64, 3), 5 * k, np.uint8)) for k in range(late, frames))
    options = {"codec": codec, "audio_codec": audio_codec, "key_every": 12, "format": kind}
    buffer = io.BytesIO()
    write_video(buffer, grey, rate, samples, sample_rate, **options)
    return buffer.getvalue()


def spectrum_peak(samples: np.ndarray, rate: int) -> float:
    windowed = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(windowed) * rate / len(samples))


def noise_video(container: str, codec: str, audio_codec: str) -> bytes:
    """Two seconds of noise, with audio."""
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    frames = [(k, rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for k in range(10)]
    options = {"codec": codec, "audio_codec": audio_codec, "format": container}
    write_video(buffer, frames, 5, 0.1 * rng.standard_normal(96_000), 48_000, **options)
    return buffer.getvalue()
