"""The mixing curve: what labels of the target modality add (paper, section 4.2, Fig. 3).

Every forest is trained on all rows of the other modality and some of the target's, from none
(zero-shot) to all. Within a draw a point holds every row of the points before it, as the paper's
"adding batches" does; rows are balanced over the classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from anymodal.core.modality import MODALITIES, OTHER, Modality
from anymodal.core.record import Measured, Record
from anymodal.evaluation.classification import Splits
from anymodal.evaluation.forests import ForestSettings, fit_forest, macro_f1

MixedSystem = Literal["MMT", "MMP"]
SYSTEMS: tuple[MixedSystem, ...] = ("MMT", "MMP")


class Fit(NamedTuple):
    """One forest of the curve."""

    system: MixedSystem
    target: Modality
    samples: int
    """Rows of the target modality in its training set."""
    draw: int


class MixingPoint(Record):
    """Macro F1 of one point over its draws."""

    target: Modality
    system: MixedSystem
    samples: int
    mean: float
    std: float
    """n − 1; 0 for one draw."""
    min: float
    max: float
    draws: int


class MixingResult(Measured):
    """What stage `mixing` measured; the single forests are in curve.parquet."""

    classes: tuple[str, ...]
    train_rows: dict[Modality, int]
    points: tuple[MixingPoint, ...]


def plan(points: Sequence[int], draws: int, available: Mapping[Modality, int]) -> list[Fit]:
    """Every forest of the curve, draw by draw.

    `available` is the number of training rows of each target, which the last point always holds.
    """
    return [
        Fit(system, target, samples, draw)
        for draw in range(draws)
        for target in MODALITIES
        for samples in sorted({p for p in points if p < available[target]} | {available[target]})
        for system in SYSTEMS
    ]


def balanced_order(instruments: np.ndarray, seed: int) -> np.ndarray:
    """A random order of rows, int64 (rows,): in the first n rows the counts of two classes differ
    by at most one, until a class has no row left."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(instruments))
    # a row's round is its place within its class; within a round the classes come in random order
    names = pd.Series(np.asarray(instruments)[shuffled])
    rounds = names.groupby(names).cumcount().to_numpy()
    return shuffled[np.lexsort((rng.permutation(len(shuffled)), rounds))]


def score_all(
    fits: Sequence[Fit],
    translated: Sequence[Splits],
    reduced: Splits,
    settings: ForestSettings,
    seed: int,
    workers: int = -1,
) -> Iterator[tuple[Fit, float]]:
    """Every fit with its macro F1 on the target's test rows, in the order in which they finish.

    A forest of draw i is grown with seed + i on all rows of the other modality and rows of the
    target. `translated` holds the features of one or several trainings of the translation, which
    the draws take in turn; `reduced` those of PCA. `workers` forests grow at once, one thread each
    (-1: one per core), which changes no score.
    """
    orders = {
        (target, draw): balanced_order(
            reduced["train"][target].instruments, seed + draw * len(MODALITIES) + place
        )
        for draw in {fit.draw for fit in fits}
        for place, target in enumerate(MODALITIES)
    }
    # Intel's forests have threads of their own
    threads, workers = (1, workers) if settings.library == "scikit-learn" else (workers, 1)

    def scored(fit: Fit) -> tuple[Fit, float]:
        features = reduced if fit.system == "MMP" else translated[fit.draw % len(translated)]
        train, test = features["train"], features["test"][fit.target]
        other, target = train[OTHER[fit.target]], train[fit.target]
        mixed = target.take(orders[fit.target, fit.draw][: fit.samples])
        forest = fit_forest([other, mixed], settings, seed + fit.draw, threads)
        classes = np.union1d(other.instruments, target.instruments)
        predicted = forest.predict(test.features) if len(test.features) else []
        return fit, macro_f1(test.instruments, predicted, classes)

    # threads: growing a tree holds no lock, and the features need no copy
    pool = Parallel(n_jobs=workers, prefer="threads", return_as="generator_unordered")
    yield from pool(delayed(scored)(fit) for fit in fits)


def summarise_curve(curve: pd.DataFrame) -> tuple[MixingPoint, ...]:
    """The points of a curve with columns system, target, samples, draw and macro_f1."""
    points = curve.groupby(["target", "system", "samples"], sort=True)["macro_f1"]
    summary = points.agg(["mean", "std", "min", "max", "size"]).rename(columns={"size": "draws"})
    rows = summary.fillna({"std": 0.0}).reset_index().to_dict("records")
    return tuple(MixingPoint.model_validate(row) for row in rows)
