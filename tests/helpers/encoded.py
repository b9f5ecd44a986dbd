"""Media files with known content, made in memory."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import soundfile
from PIL import Image


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
    sound: tuple[str, np.ndarray, int] | None = None,
    frames: int = 50,
    rate: int = 10,
    late: int = 0,
    noise: bool = False,
) -> bytes:
    """Frame k is grey of value 5 k, or noise; `sound` is (codec, mono samples, Hz); `late` frames
    are left out at the start."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        if frames:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.gop_size, stream.bit_rate = 12, 4_000_000
        if sound is not None:
            audio = container.add_stream(sound[0], rate=sound[2], layout="mono")
        if frames:
            for k in range(late, frames):
                pixels = np.full((48, 64, 3), 5 * k, np.uint8)
                if noise:
                    pixels = np.random.default_rng(k).integers(0, 255, pixels.shape, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = k
                frame.time_base = Fraction(1, rate)
                for packet in stream.encode(frame):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        if sound is not None:
            whole = av.AudioFrame.from_ndarray(
                sound[1].astype(np.float32).reshape(1, -1), format="fltp", layout="mono"
            )
            whole.sample_rate, whole.pts = sound[2], 0
            for packet in [*audio.encode(whole), *audio.encode()]:
                container.mux(packet)
    return buffer.getvalue()


def spectrum_peak(samples: np.ndarray, rate: int) -> float:
    windowed = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(windowed) * rate / len(samples))


def noise_video(container: str, video: str, audio: str) -> bytes:
    """Two seconds with audio, all of it noise."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(96_000)
    return encoded_video(container, video, (audio, samples, 48_000), 10, 5, noise=True)
