"""Instrument classifiers on the joint space (paper, sections 2.3, 3.2 and 4.2).

SMA, SMI   one modality, audio or image: PCA features, trained and tested on that modality
MMP        both modalities share a classifier on PCA features, which nothing aligns
MMT        both modalities share a classifier on translated features, in one space

Regimes: `zero-shot` trains on the other modality only; `all` on both (SMA, SMI: on their own).
Scores are macro F1; chance is one over the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import InstanceOf

from anymodal.core.modality import MODALITIES, OTHER, Modality
from anymodal.core.record import Measured, Record
from anymodal.evaluation.forests import ForestSettings, LabelledFeatures, fit_forest, macro_f1
from anymodal.evaluation.statistics import ZeroShotShare

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

System = Literal["SMA", "SMI", "MMT", "MMP"]
Regime = Literal["zero-shot", "all"]
SystemKey = tuple[System, Regime]

SINGLE: dict[Modality, System] = {"audio": "SMA", "image": "SMI"}
"""The single-modality system of each modality."""

Splits = Mapping[str, Mapping[Modality, LabelledFeatures]]
"""Features by split (`train`, `test`) and modality."""


class SeedScore(Record):
    """Macro F1 of one seed."""

    system: System
    regime: Regime
    target: Modality
    seed: int
    macro_f1: float
    train_rows: int
    train_rows_of_target: int


class Outcome(SeedScore):
    """The answers of one trained system to the test rows of one modality."""

    predictions: InstanceOf[pd.DataFrame]
    """Columns clip_id, truth, predicted; one row per test clip."""


class SystemScore(Record):
    """Macro F1 of one system over its seeds, with the numbers of rows behind it."""

    system: System
    regime: Regime
    target: Modality
    mean: float
    std: float
    """n − 1; 0 for one seed."""
    min: float
    max: float
    seeds: int
    train_rows: int
    train_rows_of_target: int
    test_rows: int
    classes: int
    chance: float

    @property
    def key(self) -> tuple[System, Regime, Modality]:
        """System, regime and target modality."""
        return self.system, self.regime, self.target


class ScoreInterval(Record):
    """95 % interval of a system's score over test recordings; None where undefined."""

    system: System
    regime: Regime
    target: Modality
    macro_f1: float
    low: float | None
    high: float | None
    groups: int


class Comparison(Record):
    """Macro F1 of one system minus that of another, on the same test clips."""

    target: Modality
    first: SystemKey
    second: SystemKey
    difference: float
    low: float | None
    high: float | None
    p_value: float
    p_holm: float
    """Adjusted over all comparisons."""


class ClassificationResult(Measured):
    """What stage `classify` measured on test rows."""

    classes: tuple[str, ...]
    forest: ForestSettings
    summary: tuple[SystemScore, ...]
    intervals: tuple[ScoreInterval, ...]
    comparisons: tuple[Comparison, ...]
    zero_shot_share: dict[Modality, ZeroShotShare]
    outcomes: tuple[SeedScore, ...]

    @property
    def scores(self) -> dict[tuple[System, Regime, Modality], SystemScore]:
        """The summary by system, regime and target modality."""
        return {score.key: score for score in self.summary}

    @property
    def intervals_by_key(self) -> dict[tuple[System, Regime, Modality], ScoreInterval]:
        """The intervals by system, regime and target modality."""
        return {(i.system, i.regime, i.target): i for i in self.intervals}


def evaluate(
    translated: Splits, reduced: Splits, settings: ForestSettings, seed: int
) -> tuple[list[Outcome], RandomForestClassifier]:
    """Train and test every system in every regime on both target modalities.

    `translated` and `reduced` are the translated and the PCA features. Each forest is trained once
    and tested wherever its training set fits the regime. Also returns the modality-agnostic forest:
    MMT trained on both modalities.
    """
    outcomes: list[Outcome] = []
    forests: dict[System, RandomForestClassifier] = {}
    multimodal: tuple[tuple[System, Splits], ...] = (("MMT", translated), ("MMP", reduced))
    for system, features in multimodal:
        train = features["train"]
        both = forests[system] = fit_forest([train[m] for m in MODALITIES], settings, seed)
        alone = {m: fit_forest([train[m]], settings, seed) for m in MODALITIES}
        for target in MODALITIES:
            rows, other = features["test"][target], OTHER[target]
            tested: list[tuple[System, Regime, RandomForestClassifier, Sequence[Modality]]] = [
                (system, "zero-shot", alone[other], [other]),
                (system, "all", both, MODALITIES),
            ]
            if system == "MMP":
                tested.append((SINGLE[target], "all", alone[target], [target]))
            for name, regime, forest, seen in tested:
                predicted = (
                    forest.predict(rows.features) if len(rows.features) else np.empty(0, str)
                )
                answers = {"clip_id": rows.clip_ids, "truth": rows.instruments}
                outcomes.append(
                    Outcome(
                        system=name,
                        regime=regime,
                        target=target,
                        seed=seed,
                        macro_f1=macro_f1(rows.instruments, predicted, forest.classes_),
                        train_rows=sum(len(train[m].features) for m in seen),
                        train_rows_of_target=len(train[target].features) if target in seen else 0,
                        predictions=pd.DataFrame(answers | {"predicted": predicted}),
                    )
                )
    return outcomes, forests["MMT"]


def summarise(outcomes: Sequence[Outcome]) -> tuple[SystemScore, ...]:
    """One score per system, regime and target, over the seeds."""
    table = pd.DataFrame(
        vars(o)
        | {"test_rows": len(o.predictions), "classes": o.predictions["truth"].nunique()}
        | {"predictions": None}
        for o in outcomes
    )
    if table.empty:
        return ()
    grouped = table.groupby(["system", "regime", "target"], sort=False)
    summary = grouped["macro_f1"].agg(["mean", "std", "min", "max", "size"])
    summary = summary.rename(columns={"size": "seeds"}).fillna({"std": 0.0})
    facts = ["train_rows", "train_rows_of_target", "test_rows", "classes"]
    summary = summary.join(grouped[facts].first())
    summary["chance"] = 1.0 / summary["classes"]
    return tuple(
        SystemScore.model_validate(row) for row in summary.reset_index().to_dict("records")
    )
