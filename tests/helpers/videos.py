"""Small videos whose images and audio are known, and segment lists of AudioSet that name them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from anymodal.ontology.instruments import INSTRUMENTS, mid

SPEECH, MUSIC, HAMMER = "/m/09x0r", "/m/04rlf", "/m/03l9g"
HEAD = (
    "# Segments csv created Sun Mar  5 10:54:31 2017",
    "# num_ytids={0}, num_segs={0}, num_unique_labels=527, num_positive_labels={1}",
    "# YTID, start_seconds, end_seconds, positive_labels",
)
RATE = 25
"""Frames a second of `timed_video`."""


def write_video(
    target: Any,
    frames: Iterable[tuple[int, np.ndarray]] = (),
    rate: int = RATE,
    samples: np.ndarray | None = None,
    sample_rate: int = 16_000,
    *,
    codec: str = "libx264",
    audio_codec: str = "aac",
    pix_fmt: str = "yuv420p",
    key_every: int = 250,
    **options: Any,
) -> None:
    """Write numbered frames, uint8 (height, width, 3), and float mono samples; either may be
    missing. options: those of `av.open`."""
    frames = list(frames)
    with av.open(target, "w", **options) as container:
        if frames:
            video = container.add_stream(codec, rate=rate)
            video.height, video.width = frames[0][1].shape[:2]
            video.pix_fmt, video.codec_context.gop_size = pix_fmt, key_every
            video.codec_context.bit_rate = 4_000_000
            if codec == "libx264":
                video.options = {"preset": "ultrafast", "crf": "8"}
        if samples is not None:
            audio = container.add_stream(audio_codec, rate=sample_rate, layout="mono")
        for number, pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(video.encode(frame))
        if frames:
            container.mux(video.encode(None))
        if samples is not None:
            block = np.asarray(samples, np.float32).reshape(1, -1)
            whole = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            whole.sample_rate, whole.pts = sample_rate, 0
            container.mux([*audio.encode(whole), *audio.encode(None)])


# videos that tell their time


def steps(seconds: float, sample_rate: int, base: float = 300.0) -> np.ndarray:
    """float32 (samples,): a tone whose pitch rises from `base` by 100 Hz every second."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.4 * np.sin(2 * np.pi * (base + 100 * np.floor(time)) * time)).astype(np.float32)


def colour(index: int, blue: int = 128) -> tuple[int, int, int]:
    """RGB of frame `index` of `timed_video`."""
    return 20 * (index // RATE), 9 * (index % RATE), blue


def timed_video(
    path: Path,
    seconds: float = 6.0,
    *,
    size: tuple[int, int] = (64, 48),
    samples: np.ndarray | None = None,
    sample_rate: int = 44_100,
    blue: int = 128,
    with_audio: bool = True,
    with_images: bool = True,
    frames: Iterable[int] | None = None,
    **options: Any,
) -> Path:
    """Write a video whose colour tells the frame and whose pitch tells the second.

    samples: audio instead of `steps`. frames: numbers of the frames that it has (default: all).
    """
    numbers = (range(round(seconds * RATE)) if frames is None else frames) if with_images else ()
    images = ((n, np.full((size[1], size[0], 3), colour(n, blue), np.uint8)) for n in numbers)
    samples = steps(seconds, sample_rate) if samples is None else samples
    lossless = options.get("codec", "libx264") in ("libx264", "ffv1")
    options = {"pix_fmt": "yuv444p" if lossless else "yuv420p", **options}
    write_video(str(path), images, RATE, samples if with_audio else None, sample_rate, **options)
    return path


# AudioSet in small


def video_id(number: int) -> str:
    """An id as YouTube has them; some with what is hard in file names."""
    return f"-{number:04d}_clip-" if number % 7 == 0 else f"f{number:04d}_clipX"


def write_lists(folder: Path, per_class: int, others: int) -> dict[str, str | None]:
    """Write the three lists; returns video → class of all that qualify.

    `per_class` videos of each of the 18 classes, `others` that have several of them, and a few that
    do not qualify. One row cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = [name for name in INSTRUMENTS for _ in range(per_class)] + [None] * others
    random.Random(1).shuffle(classes)
    videos = {video_id(number): name for number, name in enumerate(classes)}
    rows = []
    for number, (video, name) in enumerate(videos.items()):
        # several classes are none: such videos serve retrieval and translation alone
        several = [mid(INSTRUMENTS[(number + step) % len(INSTRUMENTS)]) for step in (0, 5)]
        labels = sorted([MUSIC, *([mid(name)] if name else [*several, HAMMER])])
        rows.append(f'{video}, 0.000, 2.000, "{",".join(labels)}"')
    rows += [f'{video_id(9000 + n)}, 0.000, 10.000, "{SPEECH}"' for n in range(5)]
    half = len(rows) // 2
    parts = {
        "unbalanced_train_segments.csv": [*rows[:half], "no row at all"],
        "balanced_train_segments.csv": rows[half:-3],
        "eval_segments.csv": rows[-3:],
    }
    for name, lines in parts.items():
        head = [line.format(len(lines), 2 * len(lines)) for line in HEAD]
        (folder / name).write_text("\n".join([*head, *lines]) + "\n")
    return videos


def class_video(
    path: Path, name: str | None, seed: int, *, silent: bool = False, blank: bool = False
) -> None:
    """Write 2.6 s of a tone and a checkerboard, 32 × 32 pixels, whose pitch and colour tell the
    class `name` (None: noise and grey), with noise that tells them from all others."""
    rng = np.random.default_rng(seed)
    place = INSTRUMENTS.index(name) if name else 0
    time = np.arange(41_600) / 16_000
    tone = np.sin(2 * np.pi * (200 + 90 * place) * time) * bool(name)
    samples = (0.3 * tone + 0.02 * rng.standard_normal(len(time))) * (not silent)
    hue = np.array([place * 13, 255 - place * 13, (place * 67) % 256] if name else [128] * 3)
    board = np.indices((32, 32)).sum(axis=0) // (4 + place) % 2
    image = 40 + 0.7 * hue * board[:, :, None] + 12 * rng.standard_normal((32, 32, 1))
    image = np.full((32, 32, 3), 90 + seed % 7) if blank else np.clip(image, 0, 255)
    write_video(str(path), [(n, image.astype(np.uint8)) for n in range(26)], 10, samples)
