"""A small reference, small answers and the page's command with a small classifier."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pandas as pd

from anymodal.classifier.fit import reference_of
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.classifier.prediction import Prediction, WindowPrediction
from anymodal.classifier.reference import COLUMNS, Reference
from anymodal.media.segmentation import SegmentedItem, Window
from helpers.small import calibrated

CLASSES = ("banjo", "flute", "piano")


def text_of(html: str) -> str:
    """Text of a fragment without tags, its white space joined."""
    return " ".join(unescape(re.sub("<[^>]*>", "", html)).split())


def reference(per_file: int = 2, files: int = 3, dim: int = 6) -> Reference:
    """Rows of three classes and both modalities, `per_file` windows of each of `files` files."""
    rows = [
        (f"{modality}-{name}-{file}-{window}", modality, name, "toy",
         f"{modality}/{name}/{file}.media", float(window))
        for modality in ("audio", "image")
        for name in CLASSES
        for file in range(files)
        for window in range(per_file)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    vectors = np.eye(dim)[[CLASSES.index(name) for name in table["instrument"]]]
    vectors += 0.2 * np.random.default_rng(0).standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Reference(table, vectors.astype(np.float32))


def item(*lengths_known: tuple[float, bool], kind="audio") -> tuple[SegmentedItem, Prediction]:
    """An item with a window for each (seconds, known), its audio at 100 Hz, and the answer."""
    used = {"audio": "audio", "image": "image", "video": "both"}[kind]
    probabilities = np.array([0.7, 0.2, 0.1])
    start, windows, answers = 0.0, [], []
    for number, (seconds, known) in enumerate(lengths_known):
        audio = np.resize([0.5, -0.5], round(100 * seconds)).astype(np.float32)
        image = np.arange(3600, dtype=np.uint8).reshape(30, 40, 3)
        media = (None if kind == "image" else audio, None if kind == "audio" else image)
        windows.append(Window(start, seconds, *media))
        rolled = np.roll(probabilities, number)
        answers.append(WindowPrediction(start, seconds, used, rolled, known))
        start += seconds
    known = any(known for _, known in lengths_known)
    answer = Prediction("item", used, CLASSES, probabilities, known, {"audio": 0.5}, tuple(answers))
    return SegmentedItem("item", kind, start, tuple(windows)), answer


def small_classifier() -> ModalityAgnosticClassifier:
    """The calibrated classifier of `helpers.small` with its training rows."""
    classifier, _, rows = calibrated()
    classifier.reference = reference_of(classifier, [rows["train"]], 200, 0)
    return classifier


def main() -> None:
    """The command `anymodal`, whose every classifier is `small_classifier`."""
    from anymodal.cli.main import main

    ModalityAgnosticClassifier.load = lambda location: small_classifier()  # type: ignore
    main()
