"""Instrument classifiers on the joint space (paper, sections 2.3, 3.2 and 4.2).

Goal: to learn whether a classifier needs labels of the modality that it is tested on.

Systems
-------
SMA, SMI   single modality, audio or image: PCA features, trained and tested on one modality.
MMP        multi-modal, PCA features: both modalities share a classifier, nothing aligns them.
MMT        multi-modal, translated features: both modalities share a classifier and a space.

Regimes
-------
zero-shot  trained on the other modality only; no label of the target modality is seen.
all        trained on the training rows of both modalities (of its own, for SMA and SMI).

Conventions: features are float32 (rows, dimensions); instruments are strings; scores are macro
F1 over the classes of the training table, in [0, 1]; chance is one over the number of classes,
the expected macro F1 of guessing on balanced classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

System = Literal["SMA", "SMI", "MMT", "MMP"]
Regime = Literal["zero-shot", "all"]
Library = Literal["scikit-learn", "scikit-learn-intelex"]
"""What grows forests; the second is Intel's, with scikit-learn's interface."""

SINGLE: dict[Modality, System] = {"audio": "SMA", "image": "SMI"}
"""The single-modality system of each modality."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Projected embeddings of one modality with their instruments.

    `features` is float32 (rows, dimensions); `instruments` and `clip_ids` are (rows,) strings.
    """

    features: np.ndarray
    instruments: np.ndarray
    clip_ids: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.features)
        if self.features.ndim != 2 or len(self.instruments) != rows or len(self.clip_ids) != rows:
            raise AnymodalError(
                f"features {self.features.shape}, {len(self.instruments)} instruments and "
                f"{len(self.clip_ids)} clips do not describe the same rows"
            )
        if not np.isfinite(self.features).all():
            raise AnymodalError("features hold NaN or infinity; embed and translate again")

    def take(self, rows: np.ndarray) -> LabelledFeatures:
        """The rows that an index or a mask chooses."""
        return LabelledFeatures(self.features[rows], self.instruments[rows], self.clip_ids[rows])


@dataclass(frozen=True)
class Outcome:
    """What one trained system answered on the test rows of one modality."""

    system: System
    regime: Regime
    target: Modality
    seed: int
    macro_f1: float
    train_rows: int
    train_rows_of_target: int
    predictions: pd.DataFrame
    """Columns clip_id, truth, predicted; one row a test clip."""


@dataclass(frozen=True)
class Evaluation:
    """All outcomes of one seed, and the modality-agnostic forest trained on both modalities."""

    outcomes: list[Outcome]
    forest: RandomForestClassifier


def fit_forest(
    training: Sequence[LabelledFeatures],
    trees: int,
    max_depth: int | None,
    seed: int,
    workers: int = -1,
    *,
    min_leaf: int = 1,
    max_features: str | float = "sqrt",
    library: Library = "scikit-learn",
) -> RandomForestClassifier:
    """Fit a random forest on the rows of all `training` parts together (paper: 100 trees, depth
    at most 32).

    `min_leaf` is the number of rows in a leaf at least, `max_features` what a split chooses among:
    the square root of the features' number, or a share of them. `workers` is the number of threads
    that fit, -1 for one a core; it does not change the forest. Another `library` does: its
    forests are as good in the mean, and grow several times faster.
    """
    features = np.concatenate([part.features for part in training])
    instruments = np.concatenate([part.instruments for part in training])
    if not len(features):
        raise AnymodalError("no labelled training rows; draw a larger classification subset")
    forest = _forests_of(library)(
        n_estimators=trees,
        max_depth=max_depth,
        min_samples_leaf=min_leaf,
        max_features=max_features,
        random_state=seed,
        n_jobs=workers,
    )
    # threads add up the trees' votes in the order they finish, which changes the last bits and,
    # in a tie, the answer
    return forest.fit(features, instruments).set_params(n_jobs=1)


def _forests_of(library: Library) -> type[RandomForestClassifier]:
    # imported on first use: much of what needs this module's names grows no forest
    if library == "scikit-learn":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier
    try:
        from sklearnex.ensemble import RandomForestClassifier as Accelerated
    except ImportError as error:
        raise AnymodalError(
            f"forests of {library} need it installed (pip install 'anymodal[intelex]'; x86 only)"
        ) from error
    return Accelerated


def macro_f1(
    truth: Sequence[str] | np.ndarray,
    predicted: Sequence[str] | np.ndarray,
    classes: Sequence[str] | np.ndarray,
) -> float:
    """Unweighted mean over `classes` of the F1 score, in [0, 1] (paper, section 3.3).

    A class that is neither in `truth` nor in `predicted` counts as 0, so that a test set without
    it cannot flatter; no rows at all give 0.
    """
    if not len(truth):
        return 0.0
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, labels=list(classes), average="macro", zero_division=0))


def evaluate(
    translated: Mapping[str, Mapping[Modality, LabelledFeatures]],
    reduced: Mapping[str, Mapping[Modality, LabelledFeatures]],
    trees: int,
    max_depth: int | None,
    seed: int,
    *,
    min_leaf: int = 1,
    max_features: str | float = "sqrt",
) -> Evaluation:
    """Train and test every system in every regime on both target modalities.

    `translated` and `reduced` hold the translated and the PCA features as
    `{"train" | "test": {"audio" | "image": LabelledFeatures}}`. Each forest is trained once and
    tested wherever its training set fits the regime.
    """

    def fit(parts: Sequence[LabelledFeatures]) -> RandomForestClassifier:
        return fit_forest(
            parts, trees, max_depth, seed, min_leaf=min_leaf, max_features=max_features
        )

    outcomes: list[Outcome] = []
    forests: dict[System, RandomForestClassifier] = {}
    multimodal: tuple[tuple[System, Mapping[str, Mapping[Modality, LabelledFeatures]]], ...] = (
        ("MMT", translated),
        ("MMP", reduced),
    )
    for system, features in multimodal:
        train, test = features["train"], features["test"]
        both = fit([train[m] for m in MODALITIES])
        forests[system] = both
        alone = {m: fit([train[m]]) for m in MODALITIES}
        for target in MODALITIES:
            (other,) = (m for m in MODALITIES if m != target)
            outcomes.append(
                _outcome(alone[other], system, "zero-shot", target, seed, train, test, [other])
            )
            outcomes.append(
                _outcome(both, system, "all", target, seed, train, test, list(MODALITIES))
            )
            if system == "MMP":
                outcomes.append(
                    _outcome(
                        alone[target], SINGLE[target], "all", target, seed, train, test, [target]
                    )
                )
    return Evaluation(outcomes, forests["MMT"])


def summarise(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """One row a system, regime and target: mean, standard deviation (over seeds, n − 1; 0 for one
    seed), lowest and highest macro F1, with the rows that they rest on and chance."""
    table = pd.DataFrame(
        {
            "system": o.system,
            "regime": o.regime,
            "target": o.target,
            "macro_f1": o.macro_f1,
            "train_rows": o.train_rows,
            "train_rows_of_target": o.train_rows_of_target,
            "test_rows": len(o.predictions),
            "classes": o.predictions["truth"].nunique(),
        }
        for o in outcomes
    )
    columns = ["system", "regime", "target"]
    if table.empty:
        return pd.DataFrame(columns=[*columns, "mean", "std", "min", "max", "seeds"])
    grouped = table.groupby(columns, sort=False)
    summary = grouped["macro_f1"].agg(["mean", "std", "min", "max", "size"])
    summary = summary.rename(columns={"size": "seeds"}).fillna({"std": 0.0})
    facts = ["train_rows", "train_rows_of_target", "test_rows", "classes"]
    summary = summary.join(grouped[facts].first())
    summary["chance"] = 1.0 / summary["classes"]
    return summary.reset_index()


def _outcome(
    forest: RandomForestClassifier,
    system: System,
    regime: Regime,
    target: Modality,
    seed: int,
    train: Mapping[Modality, LabelledFeatures],
    test: Mapping[Modality, LabelledFeatures],
    trained_on: Sequence[Modality],
) -> Outcome:
    rows = test[target]
    predicted = forest.predict(rows.features) if len(rows.features) else np.empty(0, dtype=str)
    return Outcome(
        system=system,
        regime=regime,
        target=target,
        seed=seed,
        macro_f1=macro_f1(rows.instruments, predicted, forest.classes_),
        train_rows=sum(len(train[m].features) for m in trained_on),
        train_rows_of_target=len(train[target].features) if target in trained_on else 0,
        predictions=pd.DataFrame(
            {"clip_id": rows.clip_ids, "truth": rows.instruments, "predicted": predicted}
        ),
    )
