"""Small videos whose images and audio tell their time.

The picture's colour tells the frame: red is `20 × second`, green `9 × frame of the second` (25 a
second), blue what the caller says. The sound is a tone of 300 Hz + 100 Hz × second at every
second, or, where samples must be told from one another, seeded noise.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 25


def tone(seconds: float, sample_rate: int, base: float = 300.0) -> np.ndarray:
    """float32 (samples,): another pitch every second."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.4 * np.sin(2 * np.pi * (base + 100 * np.floor(time)) * time)).astype(np.float32)


def noise(seconds: float, sample_rate: int, seed: int = 0) -> np.ndarray:
    """float32 (samples,), in whole sixteen-bit steps."""
    steps = np.random.default_rng(seed).integers(-12000, 12000, round(seconds * sample_rate))
    return (steps / 32768).astype(np.float32)


def colour(index: int, blue: int = 128) -> tuple[int, int, int]:
    """RGB of frame `index`."""
    return 20 * (index // RATE), 9 * (index % RATE), blue


def make_video(
    path: Path,
    seconds: float = 6.0,
    *,
    size: tuple[int, int] = (64, 48),
    sound: np.ndarray | None = None,
    sample_rate: int = 44_100,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    blue: int = 128,
    with_sound: bool = True,
    with_picture: bool = True,
    frames: list[int] | None = None,
    key_every: int = 250,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video; `frames` are the indices of the frames that it has (default: all)."""
    with av.open(str(path), "w", options=options or {}) as container:
        if with_picture:
            video = container.add_stream(video_codec, rate=RATE)
            video.width, video.height = size
            video.pix_fmt = "yuv444p" if video_codec in ("libx264", "ffv1") else "yuv420p"
            video.codec_context.gop_size = key_every
            video.codec_context.time_base = Fraction(1, RATE)
            if video_codec == "libx264":
                video.options = {"preset": "ultrafast", "crf": "8"}
        if with_sound:
            samples = tone(seconds, sample_rate) if sound is None else sound
            layout = "mono"
            audio = container.add_stream(audio_codec, rate=sample_rate, layout=layout)
        if with_picture:
            for index in range(round(seconds * RATE)) if frames is None else frames:
                pixels = np.full((size[1], size[0], 3), colour(index, blue), np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, RATE)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if with_sound:
            for begin in range(0, len(samples), 1024):
                block = samples[None, begin : begin + 1024]
                planar = audio_codec in ("aac", "libopus")
                kind = "fltp" if planar else "s16"
                if not planar:
                    block = np.round(block * 32768).astype(np.int16)
                piece = av.AudioFrame.from_ndarray(block, format=kind, layout=layout)
                piece.sample_rate, piece.pts = sample_rate, begin
                piece.time_base = Fraction(1, sample_rate)
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path
