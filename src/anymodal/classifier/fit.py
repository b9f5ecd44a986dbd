"""Fitting what a classifier has besides its forest: its calibrator and its reference rows.

Temperatures and weights are fitted on the validation rows of the classification subset, which no
forest was trained on. Novelty uses the rows of the translation subset too: the training rows of
both for its subspace, the validation rows of both for its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from anymodal.classifier.calibration import fit_temperature
from anymodal.classifier.fusion import fit_weights, pairs_of
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.classifier.open_set import OpenSetCalibrator, fit_novelty
from anymodal.classifier.reference import COLUMNS, Reference
from anymodal.config.params import ClassifyParams
from anymodal.core.modality import MODALITIES, Modality
from anymodal.embeddings.rows import Rows
from anymodal.evaluation.forests import LabelledFeatures

SplitRows = Mapping[str, Mapping[Modality, Rows]]
"""Rows by split and modality."""
Features = Mapping[str, Mapping[Modality, LabelledFeatures]]
"""Projected rows by split and modality."""


def attach_calibration(
    classifier: ModalityAgnosticClassifier,
    features: Features,
    rows: SplitRows,
    translation_rows: SplitRows,
    params: ClassifyParams,
    seed: int,
) -> None:
    """Fit the calibrator and the reference of a classifier.

    `features` and `rows` are the training and validation rows of the classification subset,
    projected and not; `translation_rows` those of the translation subset, not projected.
    """
    valid, pairing = features["valid"], classifier.facts["pairing"]
    votes, truth = votes_and_truth(classifier, valid)
    floor = 0.5 / params.trees
    plain = OpenSetCalibrator(
        temperatures={m: fit_temperature(votes[m], truth[m], floor) for m in MODALITIES},
        floor=floor,
    )
    novelty, novelty_rows = {}, {}
    for m in MODALITIES:
        train, held_out = (
            np.concatenate([rows[split][m].matrix, translation_rows[split][m].matrix])
            for split in ("train", "valid")
        )
        novelty_rows[m] = {"train": len(train), "valid": len(held_out)}
        fitted = fit_novelty(train, held_out, params.ood_keep_rate, params.subspace, seed)
        if fitted is not None:
            novelty[m] = fitted
    pairs = pairs_of(valid["audio"], valid["image"], pairing)
    weights = fit_weights(
        plain.calibrated("audio", votes["audio"])[pairs.audio],
        plain.calibrated("image", votes["image"])[pairs.image],
        truth["audio"][pairs.audio],
    )
    facts = {
        "ood_keep_rate": params.ood_keep_rate,
        "pairing": pairing,
        "calibration_rows": {m: len(truth[m]) for m in MODALITIES},
        "fusion_pairs": len(pairs.audio),
        "novelty_rows": novelty_rows,
    }
    classifier.calibrator = plain.model_copy(
        update={"weights": weights, "novelty": novelty, "facts": facts}
    )
    classifier.reference = reference_of(
        classifier, [translation_rows["train"], rows["train"]], params.reference_rows, seed
    )


def votes_and_truth(
    classifier: ModalityAgnosticClassifier, features: Mapping[Modality, LabelledFeatures]
) -> tuple[dict[Modality, np.ndarray], dict[Modality, np.ndarray]]:
    """Return the forest's shares of votes (rows, classes) and the true columns (rows,)."""
    votes = {m: classifier.votes(rows.features) for m, rows in features.items()}
    classes = classifier.classes_
    return votes, {m: np.searchsorted(classes, of.instruments) for m, of in features.items()}


def reference_of(
    classifier: ModalityAgnosticClassifier,
    parts: Sequence[Mapping[Modality, Rows]],
    most: int,
    seed: int,
) -> Reference | None:
    """Return training rows in the joint space, at most `most` per modality, drawn at random."""
    if not most:
        return None
    rng = np.random.default_rng(seed)
    tables, vectors = [], []
    for modality in MODALITIES:
        clips = pd.concat([part[modality].clips for part in parts], ignore_index=True)
        matrix = np.concatenate([part[modality].matrix for part in parts])
        if len(clips) > most:
            drawn = np.sort(rng.choice(len(clips), most, replace=False))
            clips, matrix = clips.iloc[drawn], matrix[drawn]
        vectors.append(classifier.projection.project(modality, matrix))
        table = clips.assign(modality=modality, path=clips[modality].astype(str))
        tables.append(table[list(COLUMNS)])
    return Reference(pd.concat(tables, ignore_index=True), np.concatenate(vectors))
