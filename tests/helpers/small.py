"""A small classifier that is real but for its encoders, which have no weights: tones and coloured
noise stand for instruments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from anymodal.encoders.base import MODALITIES, Modality
from anymodal.model import ModalityAgnosticClassifier
from anymodal.params import ClassifyParams
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.pca import fit_pca
from anymodal.stages.base import Rows
from anymodal.stages.features import Features, SplitRows, project
from anymodal.stages.judging import fit_judge

RATE = 8000
HERTZ = {"bell": 1500.0, "drone": 150.0, "horn": 500.0}
COLOURS = {"bell": (220, 180, 40), "drone": (40, 60, 200), "horn": (200, 40, 60)}
CLASSES = tuple(HERTZ)
COUNTS = {"train": 24, "valid": 24, "test": 12}
PARAMS = ClassifyParams(trees=40, keep=0.97, subspace=6)


class Bands:
    """Loudness in 16 bands, in decibels."""

    name, version, modality, dim = "bands", "1", "audio", 16
    sample_rate, image_size = RATE, None

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        power = [np.abs(np.fft.rfft(one, RATE)) ** 2 for one in batch]
        edges = np.geomspace(50, RATE // 2, self.dim + 1).astype(int)
        bands = [[p[a:b].mean() for a, b in pairwise(edges)] for p in power]
        return (10 * np.log10(np.array(bands).reshape(-1, self.dim) + 1e-3)).astype(np.float32)

    def save_weights(self, path: Path) -> None:
        path.write_bytes(b"none")


class Quarters:
    """Mean colour and contrast of each quarter of a picture."""

    name, version, modality, dim = "quarters", "1", "image", 24
    sample_rate, image_size = None, 16

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        facts = []
        for one in batch:
            halves = [
                part for half in np.array_split(one, 2) for part in np.array_split(half, 2, 1)
            ]
            facts.append([f(part[..., c]) for part in halves for c in range(3)
                          for f in (np.mean, np.std)])  # fmt: skip
        return np.array(facts, np.float32).reshape(-1, self.dim)

    def save_weights(self, path: Path) -> None:
        path.write_bytes(b"none")


NETWORKS = {"audio": Bands(), "image": Quarters()}


def sound(name: str, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """A tone with overtones and a little noise, float32 (samples,) at `RATE`."""
    chance = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = HERTZ[name] * chance.uniform(0.9, 1.1)
    tone = sum(np.sin(2 * np.pi * n * hertz * time + chance.uniform(0, 6)) / n for n in (1, 2))
    return (0.2 * tone + 0.01 * chance.standard_normal(len(time))).astype(np.float32)


def picture(name: str, seed: int = 0) -> np.ndarray:
    """Noise around a colour, uint8 (24, 32, 3)."""
    chance = np.random.default_rng(seed)
    colour = np.array(COLOURS[name]) + chance.integers(-20, 21, 3)
    return np.clip(colour + 15 * chance.standard_normal((24, 32, 3)), 0, 255).astype(np.uint8)


def rows_of(
    modality: Modality, split: str, count: int, pairing: str, subset: str = "classify"
) -> Rows:
    """`count` embedded rows a class; two of a recording."""
    make = sound if modality == "audio" else picture
    other = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
    clips, items = [], []
    for code, name in enumerate(CLASSES):
        for number in range(count):
            seed = 1000 * code + number + (500_000 if subset != "classify" else 0)
            # one in twelve has a wrong label, so that there are errors
            shown = other[name] if number % 12 == 5 else name
            items.append(make(shown, seed=seed + 10_000 * list(COUNTS).index(split)))
            kind = "film" if pairing == "clip" else modality
            clips.append(
                {
                    "clip_id": f"{kind}-{subset}-{split}-{code}-{number}",
                    modality: f"{split}/{seed}.{modality}",
                    "start_s": 0.5,
                    "instrument": name,
                    "source": "made",
                    "group": f"{kind}-{subset}-{split}-{code}-{number // 2}",
                }
            )
    columns = ["clip_id", modality, "start_s", "instrument", "source", "group"]
    matrix = NETWORKS[modality].embed(items)
    return Rows(pd.DataFrame(clips, columns=columns), matrix, "1")


def all_rows(pairing: str = "class", subset: str = "classify", **counts: int) -> SplitRows:
    """Rows by split and modality, `counts` a class."""
    return {
        split: {m: rows_of(m, split, count, pairing, subset) for m in MODALITIES}
        for split, count in {**COUNTS, **counts}.items()
    }


def plain(rows: SplitRows, pairing: str = "class") -> tuple[ModalityAgnosticClassifier, Features]:
    """A classifier without a judge, and its features."""
    train = rows["train"]
    refs = {m: EncoderRef(n.name, n.version, n.dim) for m, n in NETWORKS.items()}
    origin = Origin(refs["audio"], refs["image"], pairing, 0)
    projection = fit_pca(train["audio"].matrix, train["image"].matrix, 6, origin)
    features = project(projection, rows)
    forest = RandomForestClassifier(40, random_state=0).fit(
        np.concatenate([features["train"][m].features for m in MODALITIES]),
        np.concatenate([features["train"][m].instruments for m in MODALITIES]),
    )
    facts = {"dataset": "made", "pairing": pairing, "pair": "bands+quarters", "seed": 0}
    return ModalityAgnosticClassifier(projection, forest, NETWORKS, facts), features


def judged(pairing: str = "class") -> tuple[ModalityAgnosticClassifier, Features, SplitRows]:
    """A classifier with the judge that its validation rows give."""
    rows = all_rows(pairing)
    classifier, features = plain(rows, pairing)
    more = all_rows(pairing, "translate")
    classifier.judge = fit_judge(classifier, features, rows, more, PARAMS, pairing, 0)
    return classifier, features, rows
