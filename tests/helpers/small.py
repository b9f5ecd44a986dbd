"""A small classifier that is real but for its encoders, which have no weights: tones and coloured
noise stand for instruments."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from anymodal.classifier.fit import attach_calibration
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.config.params import ClassifyParams
from anymodal.core.modality import MODALITIES
from anymodal.evaluation.classification import LabelledFeatures
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.pca import fit_pca

RATE = 8000
HERTZ = {"bell": 1500.0, "drone": 150.0, "horn": 500.0}
COLOURS = {"bell": (220, 180, 40), "drone": (40, 60, 200), "horn": (200, 40, 60)}
CLASSES = tuple(HERTZ)
COUNTS = {"train": 24, "valid": 24, "test": 12}
PARAMS = ClassifyParams(trees=40, ood_keep_rate=0.97, subspace=6)


class Bands:
    """Loudness in 16 bands, in decibels."""

    name, version, modality, dim, sample_rate = "bands", "1", "audio", 16, RATE

    def embed(self, batch):
        power = [np.abs(np.fft.rfft(samples, RATE)) ** 2 for samples in batch]
        edges = np.geomspace(50, RATE // 2, self.dim + 1).astype(int)
        bands = [[p[a:b].mean() for a, b in pairwise(edges)] for p in power]
        return (10 * np.log10(np.array(bands).reshape(-1, self.dim) + 1e-3)).astype(np.float32)


class Quarters:
    """Mean and deviation of the colours of each quarter of an image."""

    name, version, modality, dim, sample_rate = "quarters", "1", "image", 24, None

    def embed(self, batch):
        values = [
            (quarter.mean((0, 1)), quarter.std((0, 1)))
            for image in batch
            for half in np.array_split(image, 2)
            for quarter in np.array_split(half, 2, 1)
        ]
        return np.array(values, np.float32).reshape(-1, self.dim)


NETWORKS = {"audio": Bands(), "image": Quarters()}


def audio(name, seconds=1.0, seed=0):
    """A tone with overtones and a little noise, float32 (samples,) at `RATE`."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = HERTZ[name] * rng.uniform(0.9, 1.1)
    tone = sum(np.sin(2 * np.pi * n * hertz * time + rng.uniform(0, 6)) / n for n in (1, 2))
    return (0.2 * tone + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


def image(name, seed=0):
    """Noise around a colour, uint8 (24, 32, 3)."""
    rng = np.random.default_rng(seed)
    colour = np.array(COLOURS[name]) + rng.integers(-20, 21, 3)
    return np.clip(colour + 15 * rng.standard_normal((24, 32, 3)), 0, 255).astype(np.uint8)


def rows_of(modality, split, count, pairing="class", subset="classify"):
    """`count` embedded rows per class, two of a recording: clips, matrix and version."""
    make = audio if modality == "audio" else image
    other = dict(zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True))
    clips, items = [], []
    for code, name in enumerate(CLASSES):
        for number in range(count):
            seed = 1000 * code + number + (500_000 if subset != "classify" else 0)
            # one in twelve has a wrong label, so that there are errors
            shown = other[name] if number % 12 == 5 else name
            items.append(make(shown, seed=seed + 10_000 * list(COUNTS).index(split)))
            clip = f"{'clip' if pairing == 'clip' else modality}-{subset}-{split}-{code}"
            clips.append(
                {
                    "clip_id": f"{clip}-{number}",
                    modality: f"{split}/{seed}.{modality}",
                    "start_s": 0.5,
                    "instrument": name,
                    "source": "synthetic",
                    "group": f"{clip}-{number // 2}",
                }
            )
    columns = ["clip_id", modality, "start_s", "instrument", "source", "group"]
    table = pd.DataFrame(clips, columns=columns)
    return SimpleNamespace(clips=table, matrix=NETWORKS[modality].embed(items), version="1")


def all_rows(pairing="class", subset="classify", **counts):
    """Rows by split and modality, `counts` per class."""
    return {
        split: {m: rows_of(m, split, count, pairing, subset) for m in MODALITIES}
        for split, count in {**COUNTS, **counts}.items()
    }


def uncalibrated(rows, pairing="class"):
    """A classifier with the default calibrator, and its features."""
    train = rows["train"]
    refs = {m: EncoderRef(n.name, n.version, n.dim) for m, n in NETWORKS.items()}
    origin = Origin(refs["audio"], refs["image"], pairing, 0)
    projection = fit_pca(train["audio"].matrix, train["image"].matrix, 6, origin)
    features = {
        split: {
            m: LabelledFeatures(
                projection.project(m, of.matrix),
                of.clips["instrument"].to_numpy(dtype=str),
                of.clips["clip_id"].to_numpy(dtype=str),
            )
            for m, of in parts.items()
        }
        for split, parts in rows.items()
    }
    forest = RandomForestClassifier(40, random_state=0).fit(
        np.concatenate([features["train"][m].features for m in MODALITIES]),
        np.concatenate([features["train"][m].instruments for m in MODALITIES]),
    )
    facts = {"dataset": "synthetic", "pairing": pairing, "pair": "bands+quarters", "seed": 0}
    return ModalityAgnosticClassifier(projection, forest, NETWORKS, facts), features


@cache
def calibrated(pairing="class"):
    """A classifier with the calibrator of its validation rows, its features and rows: shared."""
    rows = all_rows(pairing)
    classifier, features = uncalibrated(rows, pairing)
    attach_calibration(classifier, features, rows, all_rows(pairing, "translate"), PARAMS, 0)
    return classifier, features, rows
