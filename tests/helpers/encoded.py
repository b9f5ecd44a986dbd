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
) -> bytes:
    """Frame k is grey of value 5 k; `sound` is (codec, mono samples, Hz); `late` frames are
    left out at the start."""
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
                grey = np.full((48, 64, 3), 5 * k, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
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


def noise_video(container, video, audio):
    """Two seconds of noise, in images and audio."""
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        images = file.add_stream(video, rate=5)
        images.width, images.height, images.pix_fmt = 64, 48, "yuv420p"
        audio_stream = file.add_stream(audio, rate=48_000, layout="mono")
        for number in range(10):
            pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            file.mux(images.encode(frame))
        file.mux(images.encode(None))
        fitting = av.AudioResampler(audio_stream.codec_context.format, "mono", 48_000, 960)
        for start in range(0, 96_000, 960):
            samples = (0.1 * rng.standard_normal((1, 960))).astype(np.float32)
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 48_000, start, Fraction(1, 48_000)
            for piece in fitting.resample(block):
                file.mux(audio_stream.encode(piece))
        file.mux(audio_stream.encode(None))
    return buffer.getvalue()
