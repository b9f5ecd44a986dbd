"""Results of all stages, made from a seeded model of how often each system errs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from anymodal.classifier.assessment import CalibrationResult
from anymodal.core.modality import MODALITIES
from anymodal.core.record import Pairing
from anymodal.core.storage import write_parquet
from anymodal.core.workspace import Workspace, pair_name
from anymodal.data.checks import CheckReport, CheckResult
from anymodal.data.info import DatasetInfo
from anymodal.evaluation.classification import (
    SINGLE,
    ClassificationResult,
    Outcome,
)
from anymodal.evaluation.cross_source import PROTOCOLS
from anymodal.evaluation.cross_source_scores import COMPARED, CrossSourceResult
from anymodal.evaluation.forests import ForestSettings, macro_f1
from anymodal.evaluation.mixing import MixingResult, summarise_curve
from anymodal.evaluation.per_class import label_correlations
from anymodal.evaluation.resampling import Resampling
from anymodal.evaluation.retrieval import RetrievalResult
from anymodal.evaluation.selection import select_pair
from anymodal.evaluation.structure import (
    ClassCorrelation,
    SeedStructure,
    SpaceStructure,
    StructureResult,
    space_structure,
)
from anymodal.pipeline.stages.classify import scored
from anymodal.projection.trainings import PairTrainings
from anymodal.report.inputs import ReportInputs

CLASSES = (
    "accordion", "banjo", "clarinet", "drums", "flute", "guitar", "piano", "saxophone",
    "trombone", "trumpet", "violin",
)  # fmt: skip
AUDIO = ("musicnn_mtt", "musicnn_msd")
IMAGE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SKILL = {
    ("MMT", "zero-shot", "audio"): 0.86,
    ("MMT", "zero-shot", "image"): 0.95,
    ("MMP", "zero-shot", "audio"): 0.02,
    ("MMP", "zero-shot", "image"): 0.03,
    ("SMA", "all", "audio"): 0.77,
    ("SMI", "all", "image"): 0.95,
    ("MMT", "all", "audio"): 0.88,
    ("MMT", "all", "image"): 0.96,
    ("MMP", "all", "audio"): 0.75,
    ("MMP", "all", "image"): 0.94,
}
"""Share of correct answers; None for a system that was not tested."""
TRAIN_ROWS = 18
"""Of each class and modality in the classification subset."""
CHECK = {"severity": "warning", "observed": 60, "unexpected": (), "message": "60 to 1"}
LEVELS = {
    ("MMT", "zero-shot"): (0.86, 0.64, 0.30),
    ("MMT", "all"): (0.84, 0.66, 0.31),
    ("SMA", "all"): (0.54, 0.27, 0.12),
}
"""Macro F1 on audio under each of `PROTOCOLS`."""


def report_inputs(
    *,
    seeds: int = 5,
    skill: dict[tuple[str, str, str], float | None] | None = None,
    audio: Sequence[str] = AUDIO,
    image: Sequence[str] = IMAGE,
    classes: Sequence[str] = CLASSES,
    pairing: Pairing = "class",
    name: str = "instruments",
    per_class: int = 15,
) -> ReportInputs:
    """The results of one run."""
    rng = np.random.default_rng(0)
    measured = {"dataset": name, "pairing": pairing}
    pairs = list(product(audio, image))
    retrieval = [
        _retrieval(*pair, measured, seeds, 0.93 - 0.02 * n, rng) for n, pair in enumerate(pairs)
    ]
    selection = select_pair(retrieval)
    measured["pair"] = selection.pair
    classification, predictions = _classification(
        measured, classes, seeds, SKILL | (skill or {}), per_class, rng
    )
    curve = _curve(TRAIN_ROWS * len(classes), rng)
    return ReportInputs(
        dataset=dataset(name, pairing, classes),
        checks=tuple(
            CheckResult(**CHECK, name=check, success=check != "skew")
            for check in ("columns", "balance", "skew")
        ),
        trainings=_trainings(selection.audio, selection.image, pairing, seeds, rng),
        retrieval=tuple(sorted(retrieval, key=lambda r: r.pair != selection.pair)),
        selection=selection,
        classification=classification,
        predictions=predictions,
        calibration=_calibration(measured, per_class * len(classes)),
        mixing=MixingResult(
            **measured, classes=classes, train_rows={}, points=summarise_curve(curve)
        ),
        curve=curve,
        structure=_structure(measured, classes, seeds, rng),
        cross_source=cross_source(measured, classes),
    )


def write_results(inputs: ReportInputs, root: Path) -> Workspace:
    """Write the results as the stages do."""
    workspace = Workspace(root)
    for name in (
        "dataset", "selection", "classification", "calibration", "mixing", "structure",
        "cross_source",
    ):  # fmt: skip
        getattr(inputs, name).write(getattr(workspace, name))
    for result in inputs.retrieval:
        result.write(workspace.retrieval(result.pair))
    inputs.trainings.write(workspace.training(inputs.trainings.pair))
    write_parquet(workspace.predictions, inputs.predictions)
    write_parquet(workspace.mixing_curve, inputs.curve)
    CheckReport(results=inputs.checks or ()).write(workspace.checks / "checks.json")
    return workspace


def dataset(name: str, pairing: Pairing, classes: Sequence[str]) -> DatasetInfo:
    """A dataset whose classes differ in size."""
    modalities = MODALITIES if pairing == "class" else ("both",)
    parts = {
        ("translation", "train"): 80,
        ("translation", "valid"): 14,
        ("retrieval", "test"): 30,
        ("classification", "train"): TRAIN_ROWS,
        ("classification", "valid"): 6,
        ("classification", "test"): 15,
        ("unused", None): 4,
    }
    account = [
        {"instrument": instrument, "modality": modality, "subset": subset, "split": split,
         "taken": taken + 9 * place * (split == "train" and subset == "translation")}
        for place, instrument in enumerate(classes)
        for modality in modalities
        for (subset, split), taken in parts.items()
    ]  # fmt: skip
    rows = sum(entry["taken"] for entry in account) // len(modalities)
    return DatasetInfo.model_validate(
        {"name": name, "source": "pack", "pairing": pairing, "classes": classes,
         "left_out": {"cello": "audio only", "voice": "audio only"},
         "rows": dict.fromkeys(MODALITIES, rows), "groups": 2 * rows - 40, "account": account}
    )  # fmt: skip


def _retrieval(
    audio: str, image: str, measured: dict, seeds: int, level: float, rng: np.random.Generator
) -> RetrievalResult:
    noise = 0.006 * rng.standard_normal((seeds, 2))
    return RetrievalResult.model_validate(
        {
            **measured, "audio": audio, "image": image, "pair": pair_name(audio, image),
            "top_k": 30, "n_audio": 410, "n_image": 395,
            "translation": [
                {"seed": seed, "audio_to_image": level - 0.01 + forth,
                 "image_to_audio": level + 0.01 + back}
                for seed, (forth, back) in enumerate(noise.tolist())
            ],
            "pca": {"audio_to_image": 0.64, "image_to_audio": 0.61},
            "random": {"audio_to_image": 0.622, "image_to_audio": 0.631},
        }
    )  # fmt: skip


def _trainings(
    audio: str, image: str, pairing: Pairing, seeds: int, rng: np.random.Generator
) -> PairTrainings:
    trainings = []
    for seed in range(seeds):
        length = int(rng.integers(25, 45))
        losses = 0.18 + 0.8 * np.exp(-np.arange(length) / 6) + 0.008 * rng.random(length)
        best = int(np.argmin(losses))
        history = [
            {"epoch": epoch, "train_loss": loss - 0.1, "valid_loss": loss, "seconds": 0.2}
            for epoch, loss in enumerate(losses.tolist(), 1)
        ]
        trainings.append(
            {"seed": seed, "best_epoch": best + 1, "epochs": length,
             "valid_loss": losses[best], "history": history}
        )  # fmt: skip
    return PairTrainings.model_validate(
        {"audio": audio, "image": image, "pair": pair_name(audio, image), "pairing": pairing,
         "pairs_per_epoch": 1375, "seeds": trainings}
    )  # fmt: skip


def _classification(
    measured: dict,
    classes: Sequence[str],
    seeds: int,
    skill: dict[tuple[str, str, str], float | None],
    per_class: int,
    rng: np.random.Generator,
) -> tuple[ClassificationResult, pd.DataFrame]:
    codes = np.repeat(np.arange(len(classes)), per_class)
    names = np.array(classes, dtype=object)
    ids = [f"clip-{number}" for number in range(len(codes))]
    outcomes = []
    rows = TRAIN_ROWS * len(classes)
    for (key, level), seed in product(skill.items(), range(seeds)):
        if level is None:
            continue
        system, regime, target = key
        # mistakes fall on the next class more often than on others
        shift = np.where(rng.random(len(codes)) < 0.6, 1, rng.integers(1, 4, len(codes)))
        shift[rng.random(len(codes)) < level + 0.015 * rng.standard_normal()] = 0
        truth, predicted = names[codes], names[(codes + shift) % len(classes)]
        both = regime == "all" and system not in SINGLE.values()
        answers = pd.DataFrame({"clip_id": ids, "truth": truth, "predicted": predicted})
        score = macro_f1(truth, predicted, classes)
        outcomes.append(
            Outcome(
                system=system, regime=regime, target=target, seed=seed, macro_f1=score,
                train_rows=rows * (1 + both), train_rows_of_target=rows * (regime == "all"),
                predictions=answers,
            )
        )  # fmt: skip
    groups = dict(zip(ids, ids, strict=True))
    forest = ForestSettings()
    how = Resampling(replicates=50)
    return scored(outcomes, classes, groups, how, **measured, forest=forest)


def _calibration(measured: dict, rows: int) -> CalibrationResult:
    points = [{"confidence": c, "accuracy": c - 0.02, "rows": rows // 4} for c in (0.4, 0.7, 0.9)]
    modality = {
        "test_rows": rows, "temperature": 0.5, "threshold": 12.0, "known": 0.94, "ece": 0.02,
        "ece_of_votes": 0.2, "nll": 0.5, "nll_of_votes": 0.6, "reliability": points,
        "reliability_of_votes": points[:2], "accuracy": 0.91, "accuracy_of_known": 0.93,
    }  # fmt: skip
    return CalibrationResult.model_validate(
        {
            **measured, "seed": 1, "ood_keep_rate": 0.95, "fusion_pairs": 280,
            "calibration_rows": {"audio": 40, "image": 70},
            "novelty_rows": {m: {"train": 90, "valid": 20} for m in MODALITIES},
            "modalities": dict.fromkeys(MODALITIES, modality),
            "fusion": {
                "pairing": measured["pairing"], "weights": {"audio": 1.0, "image": 1.1},
                "pairs": 980, "audio": 0.8, "image": 0.95, "both": 0.97, "better": "image",
                "difference": 0.02, "interval": (-0.01, 0.05),
            },
            "unknown": {
                "noise": {"modality": "audio", "items": 50, "unknown": 0.9},
                "texture": {"modality": "image", "items": 50, "unknown": 0.98},
            },
        }
    )  # fmt: skip


def _curve(every: int, rng: np.random.Generator) -> pd.DataFrame:
    """A curve on which MMT gains little and MMP much."""
    rows = [
        (system, target, samples, draw, start + gain * samples / every)
        for system, start, gain in (("MMT", 0.85, 0.03), ("MMP", 0.05, 0.75))
        for target, samples, draw in product(MODALITIES, (0, 20, 40, every), range(4))
    ]
    table = pd.DataFrame(rows, columns=["system", "target", "samples", "draw", "macro_f1"])
    return table.assign(macro_f1=table["macro_f1"] + 0.02 * rng.random(len(table)))


def space(classes: Sequence[str], apart: float, rng: np.random.Generator) -> SpaceStructure:
    """Centroids of two modalities that lie `apart`."""
    centres = np.repeat(3 * rng.standard_normal((len(classes), 8)), 4, axis=0)
    rows = {
        modality: centres + apart * place + 0.2 * rng.standard_normal(centres.shape)
        for place, modality in enumerate(MODALITIES)
    }
    return space_structure(rows, dict.fromkeys(rows, np.repeat(np.array(classes), 4)), classes)


def _structure(
    measured: dict, classes: Sequence[str], seeds: int, rng: np.random.Generator
) -> StructureResult:
    clips = {m: rng.integers(10, 200, len(classes)) for m in MODALITIES}
    correlations = label_correlations(clips, rng.random(len(classes)), 100)
    return StructureResult(
        **measured,
        classes=classes,
        test_rows=dict.fromkeys(MODALITIES, 4 * len(classes)),
        pca=space(classes, 6.0, rng),
        translated=tuple(
            SeedStructure(seed=seed, **dict(space(classes, 0.0, rng))) for seed in range(seeds)
        ),
        label_counts={m: each.tolist() for m, each in clips.items()},
        correlations=tuple(
            ClassCorrelation(target=target, regime="all", counts_of=modality, **dict(each))
            for target in MODALITIES
            for modality, methods in correlations.items()
            for each in methods
        ),
    )


def cross_source(measured: dict, classes: Sequence[str]) -> CrossSourceResult:
    """Audio of two large sources and a small one, across which all systems fall; images of one
    source, which cannot be tested so."""

    def scores(protocols: Sequence[str]) -> list[dict]:
        return [
            {"protocol": protocol, "system": system, "regime": regime, "mean": level, "std": 0.01,
             "min": level - 0.01, "max": level + 0.01, "seeds": 2, "low": level - 0.06,
             "high": level + 0.06}
            for (system, regime), levels in LEVELS.items()
            for protocol, level in zip(PROTOCOLS, levels, strict=True)
            if protocol in protocols
        ]  # fmt: skip

    differences = []
    for (key, levels), (first, second) in product(LEVELS.items(), COMPARED):
        lost = levels[PROTOCOLS.index(first)] - levels[PROTOCOLS.index(second)]
        differences.append(
            {"system": key[0], "regime": key[1], "first": first, "second": second,
             "difference": lost, "low": lost - 0.07, "high": lost + 0.07, "p_value": 0.001,
             "p_holm": 0.0023}
        )  # fmt: skip
    audio = {
        "missing": {}, "test_rows": 150, "groups": 140, "sources": 3, "classes": classes[:-1],
        "chance": 1 / (len(classes) - 1), "scores": scores(PROTOCOLS), "differences": differences,
        "left_out": [{"instrument": classes[-1], "rows": 15, "reason": "one source (den)"}],
        "by_source": [
            {"source": source, "rows": rows, "classes": 5, "accuracy": [
                {"protocol": protocol, "system": system, "regime": regime, "value": value}
                for protocol, value in (("within", 0.9), ("cross_source", share))
                for system, regime in LEVELS
            ]}
            for source, share, rows in (("hall", 0.7, 72), ("room", 0.2, 72), ("attic", 1.0, 6))
        ],
    }  # fmt: skip
    image = {
        "missing": dict.fromkeys(PROTOCOLS[1:], "all image clips are of one source (web)"),
        "test_rows": 300, "groups": 290, "sources": 1, "classes": classes,
        "chance": 1 / len(classes), "scores": scores(PROTOCOLS[:1]),
    }  # fmt: skip
    return CrossSourceResult.model_validate(
        {**measured, "classes": classes, "seeds": 2, "targets": {"audio": audio, "image": image}}
    )
