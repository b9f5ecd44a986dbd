"""How far an export's answers are from the classifier's: each part given the same input, for a tree
may vote otherwise where rounding moves a joint vector across a split, and from end to end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.core.record import Record
from anymodal.encoders.base import Encoder, PreparingEncoder
from anymodal.media.segmentation import Item, name_of

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.export.runner import OnnxClassifier

TOLERANCES = {"votes": 1e-6, "calibrated": 1e-9, "novelty": 5e-3, "joint": 5e-3, "head": 1e-5}
"""`head` is for joint vectors of given embeddings. Encoders compute in float32, and dimensions that
vary little are scaled up: docs/onnx.md has measured differences."""
TOLERANCE = 0.05
"""Difference of a probability allowed for whole items: one or two votes of a hundred may differ."""
ROWS, HEAD_ROWS = 12, 256


class RowParity(Record):
    """Largest differences of one model on random rows."""

    rows: int
    joint: float
    """Of a coordinate, relative to the largest coordinate (or to 1)."""
    votes: float
    """From the forest's votes for the export's joint vectors."""
    calibrated: float
    """From the calibrator's probabilities for the export's votes."""
    novelty: float
    """Relative to the novelty (or to 1)."""
    rows_with_other_votes: int
    """From end to end, as is the next."""
    probabilities: float

    def check(self, name: str) -> None:
        """Raise `AnymodalError` for a difference above its tolerance."""
        joint = "head" if name.endswith("_head") else "joint"
        for part in ("joint", "votes", "calibrated", "novelty"):
            difference = getattr(self, part)
            tolerance = TOLERANCES[joint if part == "joint" else part]
            if not difference <= tolerance:
                raise AnymodalError(
                    f"{name}.onnx differs from the classifier: {part} by {difference:.2g}, more "
                    f"than {tolerance:g}; nothing was written"
                )


class ItemParity(Record):
    """Whole items compared, from the file to the answer."""

    items: int
    probabilities: float
    """Largest difference of a probability; 0 without items."""
    other_answers: int
    """Items with another answer: a class, or `unknown`."""


class Parity(Record):
    """Both comparisons."""

    random_rows: dict[str, RowParity]
    """By model."""
    items: ItemParity
    tolerances: dict[str, float] = TOLERANCES


def compare_rows(
    classifier: ModalityAgnosticClassifier, exported: OnnxClassifier
) -> dict[str, RowParity]:
    """Compare every model of an export on random rows."""
    compared = {}
    for name in exported.manifest.models:
        modality: Modality = "audio" if name.startswith("audio") else "image"
        encoder = classifier.networks[modality]
        rng = np.random.default_rng(0)
        if name.endswith("_head"):
            embeddings = random_embeddings(encoder.dim, HEAD_ROWS, rng)
            got = exported.run_head(modality, embeddings)
        else:
            assert isinstance(encoder, PreparingEncoder)
            items = random_items(encoder, ROWS, rng)
            embeddings = encoder.embed(items)
            got = exported.run(modality, np.concatenate([encoder.prepare(i) for i in items]))
        joint = classifier.projection.project(modality, embeddings)
        votes = classifier.votes(joint)
        calibrated = classifier.calibrator.calibrated
        novelty = classifier.calibrator.novelties(modality, embeddings)
        scale = np.maximum(novelty, 1.0)
        moved = np.abs(got.votes - votes).max(axis=1) > TOLERANCES["votes"]
        compared[name] = RowParity(
            rows=len(embeddings),
            joint=_worst(got.joint, joint) / max(1.0, _worst(joint, 0.0)),
            votes=_worst(got.votes, classifier.votes(got.joint)),
            calibrated=_worst(got.probabilities, calibrated(modality, got.votes)),
            novelty=_worst(got.novelty / scale, novelty / scale),
            rows_with_other_votes=int(moved.sum()),
            probabilities=_worst(got.probabilities, calibrated(modality, votes)),
        )
    return compared


def compare_items(
    classifier: ModalityAgnosticClassifier,
    exported: OnnxClassifier,
    items: Iterable[Item],
    tolerance: float = TOLERANCE,
) -> ItemParity:
    """Compare the answers for whole items; `AnymodalError` where a probability differs by more than
    `tolerance`."""
    differences, other = [0.0], 0
    for item in items:
        (expected,), (got,) = classifier.predict([item]), exported.predict([item])
        difference = _worst(got.probabilities, expected.probabilities)
        if not difference <= tolerance:
            raise AnymodalError(
                f"the export's answer for {name_of(item)} differs by {difference:.2g} in a "
                f"probability, more than {tolerance:g}; nothing was written"
            )
        differences.append(difference)
        other += got.answer != expected.answer
    return ItemParity(
        items=len(differences) - 1, probabilities=max(differences), other_answers=other
    )


def random_items(encoder: Encoder, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return audio of one second (noise, tones, silence), or images (noise, gradients)."""
    items = []
    for number in range(count):
        if encoder.modality == "audio":
            rate = encoder.sample_rate or 0
            time = np.arange(rate) / rate
            noise = rng.standard_normal(rate)
            tone = np.sin(2 * np.pi * rng.uniform(60, 4000) * time)
            level = (0.3, 0.01, 1.0, 0.0)[number // 3 % 4]
            audio = level * (noise / 4, tone, tone * np.exp(-5 * time) + noise / 40)[number % 3]
            items.append(audio.clip(-1, 1).astype(np.float32))
        else:
            height, width = (int(n) for n in rng.integers(40, 500, 2))
            image = rng.uniform(0, 256, (height, width, 3))
            if number % 2 == 0:
                corners = rng.uniform(0, 256, (2, 2, 3))
                left, right = (np.linspace(top, bottom, height) for top, bottom in corners)
                image = np.linspace(left, right, width, axis=1)
            items.append(image.astype(np.uint8))
    return items


def random_embeddings(dim: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Return normal values of several scales, the first row 0: float32 (rows, dim)."""
    scale = rng.choice([0.1, 1.0, 10.0], (rows, 1))
    embeddings = (scale * rng.standard_normal((rows, dim))).astype(np.float32)
    embeddings[:1] = 0.0
    return embeddings


def _worst(got: np.ndarray, expected: np.ndarray | float) -> float:
    """Largest absolute difference; infinite where one is not a number."""
    worst = float(np.abs(got.astype(np.float64) - expected).max(initial=0.0))
    return worst if np.isfinite(worst) else float("inf")
