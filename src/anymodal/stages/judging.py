"""Fitting a classifier's judge on validation rows, and measuring it on test rows.

Validation rows are those of the translation and the classification subset for novelty, whose
subspace is that of the training rows of both; calibration and fusion use those of the
classification subset, which no forest was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from anymodal import calibration, fusion, negatives
from anymodal.classification import LabelledFeatures
from anymodal.encoders.base import MODALITIES, Encoder, Modality
from anymodal.fusion import Pairs
from anymodal.items import is_blank
from anymodal.judge import Judge
from anymodal.model import ModalityAgnosticClassifier
from anymodal.novelty import Novelty, fit_novelty
from anymodal.params import ClassifyParams
from anymodal.reference import COLUMNS, Reference
from anymodal.stages.base import Context, Rows, dataset_facts, drawn_clips, encoder_pair, part
from anymodal.stages.features import Features

NEGATIVES = 50
"""Sounds or pictures of each kind that are no instrument."""


def equip(
    context: Context,
    classifier: ModalityAgnosticClassifier,
    features: Features,
    rows: Mapping[str, Mapping[Modality, Rows]],
) -> None:
    """Give a classifier its judge and its reference.

    `features` and `rows` are the training and validation rows of the classification subset,
    projected and not.
    """
    workspace, params = context.workspace, context.params
    clips = drawn_clips(workspace)
    audio, image = (classifier.networks[m].name for m in MODALITIES)
    more = {
        split: encoder_pair(workspace, part(clips, "translation", split), audio, image)
        for split in ("train", "valid")
    }
    pairing = dataset_facts(workspace)["pairing"]
    classifier.judge = fit_judge(
        classifier, features, rows, more, params.classify, pairing, params.seed
    )
    classifier.reference = reference_of(
        classifier, [more["train"], rows["train"]], params.classify.neighbours, params.seed
    )


def fit_judge(
    classifier: ModalityAgnosticClassifier,
    features: Features,
    rows: Mapping[str, Mapping[Modality, Rows]],
    more: Mapping[str, Mapping[Modality, Rows]],
    params: ClassifyParams,
    pairing: str,
    seed: int,
) -> Judge:
    """The judge of a classifier.

    `features` and `rows` are those of the classification subset, projected and not; `more` the
    embeddings of the translation subset, by split and modality.
    """
    classes = np.asarray(classifier.classes)
    floor = 0.5 / params.trees
    votes = {m: _votes(classifier, features["valid"][m]) for m in MODALITIES}
    truth = {m: _codes(features["valid"][m].instruments, classes) for m in MODALITIES}
    temperatures = {m: calibration.fit_temperature(votes[m], truth[m], floor) for m in MODALITIES}
    novelty: dict[Modality, Novelty] = {}
    for modality in MODALITIES:
        seen, held = (
            np.concatenate([rows[split][modality].matrix, more[split][modality].matrix])
            for split in ("train", "valid")
        )
        found = fit_novelty(seen, held, params.keep, params.subspace, seed)
        if found is not None:
            novelty[modality] = found
    plain = Judge(temperatures, floor)
    pairs = _pairs(features["valid"], pairing)
    weights = fusion.fit_weights(
        plain.calibrated("audio", votes["audio"])[pairs.audio],
        plain.calibrated("image", votes["image"])[pairs.image],
        truth["audio"][pairs.audio],
    )
    facts = {
        "keep": params.keep,
        "pairing": pairing,
        "calibration_rows": {m: len(truth[m]) for m in MODALITIES},
        "fusion_pairs": len(pairs.audio),
        "novelty_rows": {
            m: {
                split: len(rows[split][m].matrix) + len(more[split][m].matrix)
                for split in ("train", "valid")
            }
            for m in MODALITIES
        },
    }
    return Judge(temperatures, floor, weights, novelty, facts)


def measure_judge(
    classifier: ModalityAgnosticClassifier,
    features: Features,
    rows: Mapping[str, Mapping[Modality, Rows]],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """What the judge is worth on test rows, as JSON values; see docs/predict.md."""
    judge, classes = classifier.judge, np.asarray(classifier.classes)
    test = features["test"]
    about = {name: classifier.facts.get(name) for name in ("dataset", "pair", "seed")}
    told: dict[str, Any] = {**about, **judge.facts, "modalities": {}}
    calibrated = {}
    for modality in MODALITIES:
        votes = _votes(classifier, test[modality])
        truth = _codes(test[modality].instruments, classes)
        calibrated[modality] = judge.calibrated(modality, votes)
        matrix = rows["test"][modality].matrix
        threshold = judge.novelty.get(modality)
        kept = judge.novelties(modality, matrix) <= 1.0
        right = calibrated[modality].argmax(axis=1) == truth
        told["modalities"][modality] = {
            "test_rows": len(truth),
            "temperature": judge.temperatures[modality],
            "ece": _number(calibration.expected_calibration_error(calibrated[modality], truth)),
            "ece_of_votes": _number(calibration.expected_calibration_error(votes, truth)),
            "nll": _number(calibration.negative_log_likelihood(calibrated[modality], truth)),
            "nll_of_votes": _number(
                calibration.negative_log_likelihood(
                    calibration.tempered(votes, 1.0, judge.floor), truth
                )
            ),
            "reliability": [
                p._asdict() for p in calibration.reliability(calibrated[modality], truth)
            ],
            "reliability_of_votes": [p._asdict() for p in calibration.reliability(votes, truth)],
            "threshold": None if threshold is None else threshold.threshold,
            "known": float(kept.mean()) if len(kept) else None,
            "accuracy": float(right.mean()) if len(right) else None,
            "accuracy_of_known": float(right[kept].mean()) if kept.any() else None,
        }
    told["fusion"] = _measured_fusion(
        judge, calibrated, test, rows["test"], classes, replicates, seed
    )
    told["unknown"] = called_unknown(classifier.networks, judge, seed)
    return told


def called_unknown(
    networks: Mapping[Modality, Encoder], judge: Judge, seed: int
) -> dict[str, dict[str, Any]]:
    """Of sounds and pictures that are no instrument, how many are called unknown, by kind."""
    chance = np.random.default_rng(seed)
    rate = networks["audio"].sample_rate
    assert rate is not None
    told: dict[str, dict[str, Any]] = {}
    for kind, (modality, make) in negatives.kinds(rate).items():
        items = [make(chance) for _ in range(NEGATIVES)]
        novel = judge.novelties(modality, networks[modality].embed(items)) > 1.0
        novel |= np.array([is_blank(item) for item in items])
        told[kind] = {
            "modality": modality,
            "items": len(items),
            "unknown": float(novel.mean()),
        }
    return told


def reference_of(
    classifier: ModalityAgnosticClassifier,
    parts: list[Mapping[Modality, Rows]],
    most: int,
    seed: int,
) -> Reference | None:
    """Training rows in the joint space, at most `most` a modality, drawn at random."""
    if not most:
        return None
    chance = np.random.default_rng(seed)
    tables, vectors = [], []
    for modality in MODALITIES:
        clips = pd.concat([part[modality].clips for part in parts], ignore_index=True)
        matrix = np.concatenate([part[modality].matrix for part in parts])
        if len(clips) > most:
            drawn = np.sort(chance.choice(len(clips), most, replace=False))
            clips, matrix = clips.iloc[drawn], matrix[drawn]
        vectors.append(classifier.projection.project(modality, matrix))
        tables.append(
            clips.assign(modality=modality, path=clips[modality].astype(str))[list(COLUMNS)]
        )
    return Reference(pd.concat(tables, ignore_index=True), np.concatenate(vectors))


def _measured_fusion(
    judge: Judge,
    calibrated: Mapping[Modality, np.ndarray],
    test: Mapping[Modality, LabelledFeatures],
    rows: Mapping[Modality, Rows],
    classes: np.ndarray,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    pairing = str(judge.facts["pairing"])
    pairs = _pairs(test, pairing)
    truth = _codes(test["audio"].instruments, classes)[pairs.audio]
    alone = {
        "audio": calibrated["audio"][pairs.audio],
        "image": calibrated["image"][pairs.image],
    }
    answers = {**alone, "both": fusion.fuse(alone["audio"], alone["image"], judge.weights)}
    found = fusion.gain(
        {name: table.argmax(axis=1) == truth for name, table in answers.items()},
        pairs,
        (rows["audio"].clips["group"].to_numpy(), rows["image"].clips["group"].to_numpy()),
        replicates=replicates,
        seed=seed,
        filmed=pairing == "clip",
    )
    numbers = {name: _number(getattr(found, name)) for name in (*answers, "difference")}
    return {
        "weights": judge.weights._asdict(),
        "pairing": pairing,
        **found._asdict(),
        **numbers,
        "interval": None if found.interval is None else list(found.interval),
    }


def _pairs(features: Mapping[Modality, LabelledFeatures], pairing: str) -> Pairs:
    audio, image = features["audio"], features["image"]
    clips = (audio.clip_ids, image.clip_ids) if pairing == "clip" else None
    return fusion.pairs_of(audio.instruments, image.instruments, clips)


def _votes(classifier: ModalityAgnosticClassifier, features: LabelledFeatures) -> np.ndarray:
    if not len(features.features):
        return np.empty((0, len(classifier.classes)))
    return classifier.forest.predict_proba(features.features)


def _codes(instruments: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.searchsorted(classes, instruments)


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value
