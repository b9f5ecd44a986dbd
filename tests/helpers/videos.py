"""AudioSet in small: segment lists in the official form, and the films that they name.

Every film is a few seconds of a tone and a checkerboard whose pitch and colour tell its class,
with noise that tells it from all others.
"""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from anymodal.ontology.instruments import INSTRUMENTS, mid

SPEECH, MUSIC, HAMMER = "/m/09x0r", "/m/04rlf", "/m/03l9g"
RATE, SOUND_RATE = 10, 16_000
SECONDS = 2.6
HEAD = (
    "# Segments csv created Sun Mar  5 10:54:31 2017",
    "# num_ytids={0}, num_segs={0}, num_unique_labels=527, num_positive_labels={1}",
    "# YTID, start_seconds, end_seconds, positive_labels",
)


def video_id(number: int) -> str:
    """An id as YouTube has them; some with what is hard in file names."""
    return f"-{number:04d}_film-" if number % 7 == 0 else f"f{number:04d}_filmX"


def write_lists(folder: Path, per_class: int, others: int) -> dict[str, str | None]:
    """Write the three lists; returns video → class of all that qualify.

    `per_class` films of each of the 18 classes, `others` that have several of them, and a few that
    do not qualify. One row cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = [name for name in INSTRUMENTS for _ in range(per_class)] + [None] * others
    random.Random(1).shuffle(classes)
    films = {video_id(number): name for number, name in enumerate(classes)}
    rows = []
    for number, (film, name) in enumerate(films.items()):
        # several classes are none: such films serve retrieval and translation alone
        several = [mid(INSTRUMENTS[(number + step) % len(INSTRUMENTS)]) for step in (0, 5)]
        labels = sorted([MUSIC, *([mid(name)] if name else [*several, HAMMER])])
        rows.append(f'{film}, 0.000, 2.000, "{",".join(labels)}"')
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
    return films


def write_film(
    path: Path, name: str | None, seed: int, *, silent: bool = False, blank: bool = False
) -> None:
    """Write a film of 64 × 64 pixels for the class `name` (None: noise and grey)."""
    chance = np.random.default_rng(seed)
    place = INSTRUMENTS.index(name) if name else None
    time = np.arange(round(SECONDS * SOUND_RATE)) / SOUND_RATE
    tone = np.sin(2 * np.pi * (200 + 90 * (place or 0)) * time) if place is not None else 0 * time
    sound = 0.3 * tone + 0.02 * chance.standard_normal(len(time))
    sound = np.zeros_like(sound) if silent else sound
    hue = np.array([place * 13, 255 - place * 13, (place * 67) % 256] if name else [128] * 3)
    board = np.indices((64, 64)).sum(axis=0) // (4 + (place or 0)) % 2
    picture = 40 + 0.7 * hue * board[:, :, None] + 12 * chance.standard_normal((64, 64, 1))
    pixels = np.clip(np.full((64, 64, 3), 90 + seed % 7) if blank else picture, 0, 255)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "18"}
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for index in range(round(SECONDS * RATE)):
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            block = sound[start : start + 1024].astype(np.float32)
            piece = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            piece.sample_rate, piece.pts = SOUND_RATE, start
            piece.time_base = Fraction(1, SOUND_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
