"""How far an export's answers are from the classifier's own.

A forest is made of steps: where a coordinate of a joint vector lies nearer to a split than rounding
can tell, a tree votes otherwise, and the answer moves by a vote. So the parts are compared one by
one, each with the input that it had, where nothing but rounding may differ:

joint        largest difference of a coordinate, relative to the largest coordinate (or to 1), from
             the encoder's and the projection's
votes        largest difference from the forest's votes for the very joint vectors of the export
calibrated   largest difference from the judge's probabilities for the very votes of the export
novelty      largest difference from the judge's, relative to it (or to 1)

and from end to end, where a vote may have moved:

rows_otherwise   rows whose votes are others than the classifier's own
probabilities    largest difference of a probability
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal.encoders.base import Encoder, Modality, PreparingEncoder
from anymodal.errors import AnymodalError
from anymodal.items import Item, name_of
from anymodal.onnx.runner import OnnxClassifier, Outputs

if TYPE_CHECKING:
    from anymodal.model import ModalityAgnosticClassifier

VOTES, CALIBRATED, NOVELTY = 1e-6, 1e-9, 5e-3
"""Tolerances."""
JOINT, HEAD_JOINT = 5e-3, 1e-5
"""Tolerances of a model and of a head alone. Encoders compute in float32, and what varies little
over the training rows is scaled up before it is projected: musicnn's joint vectors of real sounds
are up to 6e-4 from those of a float64 computation in PyTorch, and up to 7e-4 in onnxruntime (the
median of both is 1e-4). With EfficientNet-Lite the two are within 3e-6 of each other."""
TOLERANCE = 0.05
"""Difference of a probability that whole items may have: a vote or two of a hundred may have moved,
and an item may have one moment only."""
ROWS, HEAD_ROWS = 12, 256
"""Random rows that a model and a head are compared on."""


@dataclass(frozen=True)
class Rows:
    """One model compared on random rows; see the module."""

    rows: int
    joint: float
    votes: float
    calibrated: float
    novelty: float
    rows_otherwise: int
    probabilities: float

    def check(self, name: str) -> None:
        """Raise `AnymodalError` for a difference above its tolerance."""
        for part, most in (
            ("joint", HEAD_JOINT if name.endswith("_head") else JOINT),
            ("votes", VOTES),
            ("calibrated", CALIBRATED),
            ("novelty", NOVELTY),
        ):
            found = getattr(self, part)
            if not found <= most:
                raise AnymodalError(
                    f"{name}.onnx differs from the classifier: {part} by {found:.2g}, more than "
                    f"{most:g}; nothing was written"
                )


@dataclass(frozen=True)
class Items:
    """Whole items compared, from the file to the answer."""

    items: int
    probabilities: float
    """Largest difference of a probability; 0 where there are no items."""
    worst: str
    """The item that has it."""
    answers_otherwise: int
    """Items whose answer is another one: a class, or `unknown`."""

    def check(self, tolerance: float) -> None:
        """Raise `AnymodalError` for a difference above `tolerance`."""
        if not self.probabilities <= tolerance:
            raise AnymodalError(
                f"the export's answer for {self.worst} differs by {self.probabilities:.2g} in a "
                f"probability, more than {tolerance:g}; nothing was written"
            )


def compare_rows(
    classifier: ModalityAgnosticClassifier, exported: OnnxClassifier, seed: int
) -> dict[str, Rows]:
    """Compare every model of an export on random rows."""
    found: dict[str, Rows] = {}
    for name in exported.manifest.models:
        modality: Modality = "audio" if name.startswith("audio") else "image"
        encoder = classifier.networks[modality]
        rng = np.random.default_rng(seed)
        if name.endswith("_head"):
            embeddings = random_embeddings(encoder.dim, HEAD_ROWS, rng)
            got = exported.run_head(modality, embeddings)
        else:
            assert isinstance(encoder, PreparingEncoder)
            items = random_items(encoder, ROWS, rng)
            embeddings = encoder.embed(items)
            got = exported.run(modality, np.concatenate([encoder.prepare(i) for i in items]))
        found[name] = _compared(classifier, modality, embeddings, got)
    return found


def compare_items(
    classifier: ModalityAgnosticClassifier, exported: OnnxClassifier, items: Iterable[Item]
) -> Items:
    """Compare the answers for whole items, one after the other.

    Raises `MediaError` where one cannot be decoded, and `AnymodalError` where the export has no
    model for it.
    """
    worst, name, otherwise, count = 0.0, "", 0, 0
    for item in items:
        (expected,), (got,) = classifier.predict([item]), exported.predict([item])
        difference = float(np.abs(got.probabilities - expected.probabilities).max())
        if difference > worst or np.isnan(difference):
            worst, name = difference, name_of(item)
        otherwise += got.answer != expected.answer
        count += 1
    return Items(count, worst, name, otherwise)


def as_dict(rows: dict[str, Rows], items: Items) -> dict[str, Any]:
    """Both comparisons as JSON values, without the names of files."""
    told = asdict(items)
    del told["worst"]
    return {
        "random_rows": {name: asdict(one) for name, one in rows.items()},
        "items": told,
        "tolerances": {
            "joint": JOINT,
            "joint_of_head": HEAD_JOINT,
            "votes": VOTES,
            "calibrated": CALIBRATED,
            "novelty": NOVELTY,
        },
    }


def random_items(encoder: Encoder, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Sounds of one second (noise and tones, loud, soft and silent), or pictures (noise, and
    colours that run from side to side)."""
    items = []
    for number in range(count):
        if encoder.modality == "audio":
            rate = encoder.sample_rate or 0
            time = np.arange(rate) / rate
            noise = rng.standard_normal(rate)
            tone = np.sin(2 * np.pi * rng.uniform(60, 4000) * time)
            level = (0.3, 0.01, 1.0, 0.0)[number // 3 % 4]
            sound = level * (noise / 4, tone, tone * np.exp(-5 * time) + noise / 40)[number % 3]
            items.append(sound.clip(-1, 1).astype(np.float32))
        else:
            height, width = (int(n) for n in rng.integers(40, 500, 2))
            if number % 2:
                picture = rng.uniform(0, 256, (height, width, 3))
            else:
                slopes = rng.uniform(0, 256, (4, 3))
                down, across = np.linspace(0, 1, height), np.linspace(0, 1, width)
                left = slopes[0] + np.outer(down, slopes[1] - slopes[0])
                right = slopes[2] + np.outer(down, slopes[3] - slopes[2])
                share = across[None, :, None]
                picture = left[:, None] * (1 - share) + right[:, None] * share
            items.append(picture.astype(np.uint8))
    return items


def random_embeddings(dim: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Normal values of several scales, and a row of zeros: float32 (rows, dim)."""
    scale = rng.choice([0.1, 1.0, 10.0], (rows, 1))
    embeddings = (scale * rng.standard_normal((rows, dim))).astype(np.float32)
    embeddings[:1] = 0.0
    return embeddings


def _compared(
    classifier: ModalityAgnosticClassifier,
    modality: Modality,
    embeddings: np.ndarray,
    got: Outputs,
) -> Rows:
    joint = classifier.projection.project(modality, embeddings)
    votes = classifier.forest.predict_proba(joint)
    novelty = classifier.judge.novelties(modality, embeddings)
    probabilities = classifier.judge.calibrated(modality, votes)
    return Rows(
        rows=len(embeddings),
        joint=_worst(got.joint, joint) / max(1.0, _worst(joint, np.zeros_like(joint))),
        votes=_worst(got.votes, classifier.forest.predict_proba(got.joint)),
        calibrated=_worst(got.probabilities, classifier.judge.calibrated(modality, got.votes)),
        novelty=_worst(got.novelty / np.maximum(novelty, 1.0), novelty / np.maximum(novelty, 1.0)),
        rows_otherwise=int((np.abs(got.votes - votes).max(axis=1) > VOTES).sum()),
        probabilities=_worst(got.probabilities, probabilities),
    )


def _worst(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite where one of them is no number."""
    if not got.size:
        return 0.0
    worst = float(np.abs(got.astype(np.float64) - expected).max())
    return worst if np.isfinite(worst) else float("inf")
