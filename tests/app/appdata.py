"""A small reference and small answers, for tests of the page's parts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from anymodal.items import Moment, Moments
from anymodal.prediction import MomentAnswer, Prediction
from anymodal.reference import COLUMNS, Reference

CLASSES = ("banjo", "flute", "piano")


def reference(per_file: int = 2, files: int = 3, dim: int = 6, seed: int = 0) -> Reference:
    """Rows of three classes and both modalities, `per_file` windows of each of `files` files."""
    chance = np.random.default_rng(seed)
    rows, vectors = [], []
    for modality, ending in (("audio", "wav"), ("image", "jpg")):
        for code, name in enumerate(CLASSES):
            for file in range(files):
                for window in range(per_file):
                    rows.append(
                        (f"{modality}-{name}-{file}-{window}", modality, name, "toy",
                         f"{modality}/{name}/{file}.{ending}", float(window))
                    )  # fmt: skip
                    vectors.append(np.eye(dim)[code] + 0.2 * chance.standard_normal(dim))
    table = np.array(vectors, np.float32).reshape(-1, dim)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return Reference(pd.DataFrame(rows, columns=list(COLUMNS)), table)


def item(*seconds_known: tuple[float, bool], kind="audio", rate=100) -> tuple[Moments, Prediction]:
    """An item with a moment for each (length, known), and the answer to it."""
    chance = np.random.default_rng(1)
    start, moments, answers = 0.0, [], []
    for number, (seconds, known) in enumerate(seconds_known):
        sound = chance.uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
        picture = chance.integers(0, 255, (30, 40, 3), np.uint8)
        moments.append(
            Moment(
                start,
                0.0 if kind == "image" else seconds,
                sound if kind != "image" else None,
                picture if kind != "audio" else None,
            )
        )
        shares = np.roll([0.7, 0.2, 0.1], number)
        used = {"audio": "audio", "image": "image", "video": "both"}[kind]
        answers.append(MomentAnswer(start, seconds, used, shares, known))
        start += seconds
    answer = Prediction(
        "item", used, CLASSES, np.array([0.7, 0.2, 0.1]), any(k for _, k in seconds_known),
        {"audio": 0.5}, tuple(answers),
    )  # fmt: skip
    return Moments("item", kind, 0.0 if kind == "image" else start, tuple(moments)), answer
