"""What a classifier's calibration, fusion and unknown answers are worth on test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator
from scipy.sparse import coo_array

from anymodal.classifier import calibration, synthetic_ood
from anymodal.classifier.calibration import ReliabilityPoint
from anymodal.classifier.fit import Features, SplitRows, votes_and_truth
from anymodal.classifier.fusion import Pairs, Weights, fuse, pairs_of
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Measured, Pairing, Record
from anymodal.encoders.base import Encoder
from anymodal.evaluation.resampling import BLOCK, Interval
from anymodal.media.segmentation import is_blank

SYNTHETIC_ITEMS = 50
"""Synthetic items of each kind."""

Number = Annotated[float | None, BeforeValidator(lambda x: x if x == x else None)]
"""None in place of NaN: without rows."""


class ModalityCalibration(Record):
    """Calibration and unknown answers of one modality; `…_of_votes` is before calibration."""

    test_rows: int
    temperature: float
    ece: Number
    ece_of_votes: Number
    nll: Number
    nll_of_votes: Number
    reliability: tuple[ReliabilityPoint, ...]
    reliability_of_votes: tuple[ReliabilityPoint, ...]
    threshold: float | None
    """Novelty above which a row is unknown; None where none could be fitted."""
    known: Number
    """Share of the test rows, all of known classes, that is called known."""
    accuracy: Number
    accuracy_of_known: Number


class FusionResult(Record):
    """Accuracy of each modality alone and of both fused, on the same pairs."""

    pairing: Pairing
    pairs: int
    weights: Weights
    audio: Number
    image: Number
    both: Number
    better: Modality
    """The modality with the higher accuracy alone."""
    difference: Number
    """Accuracy of both less that of the better modality."""
    interval: tuple[float, float] | None
    """95 % interval of the difference, over recordings and images; None without pairs."""


class UnknownRate(Record):
    """Share of the synthetic items of one kind that is called unknown."""

    modality: Modality
    items: int
    unknown: float


class CalibrationResult(Measured):
    """`classification/calibration.json`; rows by modality, and by split."""

    seed: int
    ood_keep_rate: float
    calibration_rows: dict[Modality, int]
    fusion_pairs: int
    novelty_rows: dict[Modality, dict[str, int]]
    modalities: dict[Modality, ModalityCalibration]
    fusion: FusionResult
    unknown: dict[str, UnknownRate]
    """By kind of synthetic item."""


def assess_calibrator(
    classifier: ModalityAgnosticClassifier,
    features: Features,
    rows: SplitRows,
    replicates: int,
    seed: int,
) -> CalibrationResult:
    """Measure the calibrator on the test rows of the classification subset.

    `features` and `rows` are projected and not; `replicates` are those of the fusion's bootstrap.
    """
    calibrator, test = classifier.calibrator, features["test"]
    votes, truth = votes_and_truth(classifier, test)
    modalities: dict[Modality, ModalityCalibration] = {}
    for m in MODALITIES:
        known = calibrator.novelties(m, rows["test"][m].matrix) <= 1.0
        modalities[m] = assess_modality(calibrator, m, votes[m], truth[m], known)
    pairs = pairs_of(test["audio"], test["image"], calibrator.facts["pairing"])
    tables: dict[str, np.ndarray] = {
        m: calibrator.calibrated(m, votes[m])[getattr(pairs, m)] for m in MODALITIES
    }
    tables["both"] = fuse(tables["audio"], tables["image"], calibrator.weights)
    truth_of_pairs = truth["audio"][pairs.audio]
    correct = {name: table.argmax(axis=1) == truth_of_pairs for name, table in tables.items()}
    groups = {m: rows["test"][m].clips["group"].to_numpy() for m in MODALITIES}
    return CalibrationResult(
        **{name: classifier.facts[name] for name in ("dataset", "pair", "seed")},
        **calibrator.facts,
        modalities=modalities,
        fusion=compare_fusion(calibrator, correct, pairs, groups, replicates, seed),
        unknown=unknown_rates(classifier.networks, calibrator, seed),
    )


def assess_modality(
    calibrator: OpenSetCalibrator,
    modality: Modality,
    votes: np.ndarray,
    truth: np.ndarray,
    known: np.ndarray,
) -> ModalityCalibration:
    """Measure calibration on `votes` (rows, classes); `known`, bool (rows,), are not novel."""
    probabilities = calibrator.calibrated(modality, votes)
    untempered = calibration.tempered(votes, 1.0, calibrator.floor)
    correct = probabilities.argmax(axis=1) == truth
    novelty = calibrator.novelty.get(modality)
    return ModalityCalibration(
        test_rows=len(truth),
        temperature=calibrator.temperatures[modality],
        ece=calibration.expected_calibration_error(probabilities, truth),
        ece_of_votes=calibration.expected_calibration_error(votes, truth),
        nll=calibration.negative_log_likelihood(probabilities, truth),
        nll_of_votes=calibration.negative_log_likelihood(untempered, truth),
        reliability=tuple(calibration.reliability(probabilities, truth)),
        reliability_of_votes=tuple(calibration.reliability(votes, truth)),
        threshold=None if novelty is None else novelty.threshold,
        known=_mean(known),
        accuracy=_mean(correct),
        accuracy_of_known=_mean(correct[known]),
    )


def compare_fusion(
    calibrator: OpenSetCalibrator,
    correct: Mapping[str, np.ndarray],
    pairs: Pairs,
    groups: Mapping[Modality, np.ndarray],
    replicates: int,
    seed: int,
) -> FusionResult:
    """Compare fused answers with those of each modality alone.

    `correct` says which pairs `audio`, `image` and `both` answer correctly, bool (pairs,). `groups`
    are the recordings of each modality's rows, drawn anew in every replicate: together for clip
    pairs, else independently (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics
    1).
    """
    accuracy = {name: _mean(answers) for name, answers in correct.items()}
    better: Modality = "image" if accuracy["image"] > accuracy["audio"] else "audio"
    difference = correct["both"].astype(np.float64) - correct[better]
    pairing = calibrator.facts["pairing"]
    return FusionResult(
        pairing=pairing,
        pairs=len(difference),
        weights=calibrator.weights,
        **accuracy,
        better=better,
        difference=_mean(difference),
        interval=_interval(difference, pairs, groups, pairing == "clip", replicates, seed),
    )


def _interval(
    difference: np.ndarray,
    pairs: Pairs,
    groups: Mapping[Modality, np.ndarray],
    together: bool,
    replicates: int,
    seed: int,
) -> Interval | None:
    """95 % interval of the mean of `difference` (pairs,)."""
    if not len(difference):
        return None
    audio, image = (np.unique(groups[m], return_inverse=True)[1] for m in MODALITIES)
    cells = audio[pairs.audio], image[pairs.image]
    shape = int(audio.max()) + 1, int(image.max()) + 1
    sums, counts = (
        coo_array((of_pairs, cells), shape).tocsr()
        for of_pairs in (difference, np.ones(len(difference)))
    )
    rng = np.random.default_rng(seed)
    means = []
    step = max(1, BLOCK // max(shape))
    for first in range(0, replicates, step):
        size = min(step, replicates - first)
        # how often each group is in each resample, float64 (replicates, groups)
        of_audio, of_image = (
            1.0 if together and axis else rng.multinomial(n, np.full(n, 1 / n), size).astype(float)
            for axis, n in enumerate(shape)
        )
        totals, weighted = (((of_audio @ m) * of_image).sum(axis=1) for m in (counts, sums))
        means.append(weighted[totals > 0] / totals[totals > 0])
    values = np.concatenate(means)
    return Interval(*np.quantile(values, (0.025, 0.975)).tolist()) if len(values) else None


def unknown_rates(
    networks: Mapping[Modality, Encoder], calibrator: OpenSetCalibrator, seed: int
) -> dict[str, UnknownRate]:
    """Return how many synthetic items that show no instrument are called unknown, by kind."""
    rng = np.random.default_rng(seed)
    rate = networks["audio"].sample_rate
    assert rate is not None
    rates = {}
    for kind, (modality, make) in synthetic_ood.kinds(rate).items():
        items = [make(rng) for _ in range(SYNTHETIC_ITEMS)]
        unknown = calibrator.novelties(modality, networks[modality].embed(items)) > 1.0
        unknown |= np.array([is_blank(item) for item in items])
        rates[kind] = UnknownRate(modality=modality, items=len(items), unknown=unknown.mean())
    return rates


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
