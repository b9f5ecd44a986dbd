"""The mixing curve: what labels of the target modality add (paper, section 4.2, Fig. 3).

Goal: to see how a multi-modal classifier that was trained on the other modality gains from labelled
rows of the modality it is tested on, mixed in bit by bit, and how many it needs to reach a
classifier of that modality alone.

Conventions
-----------
Samples   rows of the target modality in the training set; all rows of the other are always there.
          0 is zero-shot, the last point holds every row there is.
Balance   a draw takes the same number of rows of each class, one more of some where the number
          does not divide; a class that has run out leaves its share to the others.
Draw      one random order of the target's rows. The samples of a point are the first of that
          order, so within a draw a point holds every row of the points before it, as the paper's
          "adding batches" does, and points differ by what was added alone. Each draw has its own
          training of the translation where there are several (the paper does not say what its
          boxes vary).
Score     macro F1 on the test rows of the target modality.

* :func:`plan`: which forests a curve consists of
* :func:`balanced_order`: the order in which a draw mixes rows in
* :func:`fit`: one forest, scored
* :func:`fit_all`: all of them in parallel, each as it is done
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from joblib import Parallel, delayed

from anymodal.classification import LabelledFeatures, Library, fit_forest, macro_f1
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError

MixedSystem = Literal["MMT", "MMP"]
SYSTEMS: tuple[MixedSystem, ...] = ("MMT", "MMP")

Splits = Mapping[str, Mapping[Modality, LabelledFeatures]]
"""Features by split, `train` and `test`, and modality."""


@dataclass(frozen=True)
class Fit:
    """One forest of the curve."""

    system: MixedSystem
    target: Modality
    samples: int
    """Rows of the target modality that are mixed in."""
    draw: int


@dataclass(frozen=True)
class Forests:
    """How forests are grown."""

    trees: int
    max_depth: int | None
    seed: int
    """The forest of draw i is grown with seed + i."""
    min_leaf: int = 1
    max_features: str | float = "sqrt"
    library: Library = "scikit-learn"


def plan(points: Sequence[int], draws: int, available: Mapping[Modality, int]) -> list[Fit]:
    """Every forest of the curve, draw by draw.

    `available` tells the target's training rows. Points beyond them are left out and all of them
    are the last point, whether `points` names it or not.
    """
    if draws < 1:
        raise AnymodalError(f"a curve needs at least one draw, not {draws}")
    if any(point < 0 for point in points):
        raise AnymodalError(f"a curve cannot hold {min(points)} samples")
    return [
        Fit(system, target, samples, draw)
        for draw in range(draws)
        for target in MODALITIES
        for samples in sorted({p for p in points if p < available[target]} | {available[target]})
        for system in SYSTEMS
    ]


def balanced_order(instruments: np.ndarray, seed: int) -> np.ndarray:
    """A random order of rows, int64 (rows,), whose every beginning is balanced over the classes.

    `instruments` (rows,) are the classes' names. In the first n rows the counts of two classes
    differ by at most one, until a class has no row left.
    """
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(instruments))
    names, codes = np.unique(np.asarray(instruments)[shuffled], return_inverse=True)
    # a row's round is its place within its class; within a round the classes come in random order
    rounds = np.empty(len(shuffled), dtype=np.int64)
    for code in range(len(names)):
        own = codes == code
        rounds[own] = np.arange(own.sum())
    return shuffled[np.lexsort((random.permutation(len(shuffled)), rounds))]


def fit(
    features: Splits,
    order: np.ndarray,
    target: Modality,
    samples: int,
    forests: Forests,
    draw: int,
    threads: int = 1,
) -> float:
    """Grow the forest on all of the other modality and the first `samples` rows of `order`; its
    macro F1 on the target's test rows."""
    (other,) = (modality for modality in MODALITIES if modality != target)
    train, test = features["train"], features["test"][target]
    mixed = train[target].take(order[:samples])
    forest = fit_forest(
        [train[other], mixed],
        forests.trees,
        forests.max_depth,
        forests.seed + draw,
        workers=threads,
        min_leaf=forests.min_leaf,
        max_features=forests.max_features,
        library=forests.library,
    )
    classes = np.union1d(train[other].instruments, train[target].instruments)
    predicted = forest.predict(test.features) if len(test.features) else []
    return macro_f1(test.instruments, predicted, classes)


def fit_all(
    fits: Sequence[Fit],
    translated: Sequence[Splits],
    reduced: Splits,
    forests: Forests,
    workers: int = -1,
) -> Iterator[tuple[Fit, float]]:
    """Every fit with its score, as they are done.

    `translated` holds the features of one or several trainings of the translation, which the draws
    take in turn; `reduced` those of PCA. `workers` forests grow at once, one thread each (-1: one a
    core): that scales where threads within a forest wait for one another. It changes no score.
    """
    orders = {
        (target, draw): balanced_order(
            reduced["train"][target].instruments, forests.seed + draw * len(MODALITIES) + place
        )
        for draw in {one.draw for one in fits}
        for place, target in enumerate(MODALITIES)
    }

    def score(one: Fit) -> tuple[Fit, float]:
        features = reduced if one.system == "MMP" else translated[one.draw % len(translated)]
        order = orders[one.target, one.draw]
        return one, fit(features, order, one.target, one.samples, forests, one.draw, threads)

    # Intel's forests have threads of their own, and none within those of others
    threads, workers = (1, workers) if forests.library == "scikit-learn" else (workers, 1)
    # threads: growing a tree holds no lock, and the features need no copy
    pool = Parallel(n_jobs=workers, prefer="threads", return_as="generator_unordered")
    yield from pool(delayed(score)(one) for one in fits)
