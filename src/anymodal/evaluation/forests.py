"""Random forests: how they are grown, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from anymodal.config.params import ClassifyParams
from anymodal.core.errors import AnymodalError
from anymodal.core.record import Record

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

Library = Literal["scikit-learn", "scikit-learn-intelex"]


@dataclass(frozen=True)
class LabelledFeatures:
    """Projected embeddings of one modality with their instruments."""

    features: np.ndarray
    """float32 (rows, dim), finite."""
    instruments: np.ndarray
    """str (rows,)."""
    clip_ids: np.ndarray
    """str (rows,)."""

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
        """The rows that an index or a mask selects."""
        return LabelledFeatures(self.features[rows], self.instruments[rows], self.clip_ids[rows])


class ForestSettings(Record):
    """How forests are grown, apart from their seed."""

    trees: int = 100
    max_depth: int | None = 32
    min_leaf: int = 1
    """Fewest rows in a leaf."""
    max_features: str | float = "sqrt"
    """Features that a split chooses among: `sqrt` of their number, or a share of them."""
    library: Library = "scikit-learn"
    """The second is Intel's: as accurate on average, several times faster, other forests."""

    @classmethod
    def of(cls, params: ClassifyParams, library: Library = "scikit-learn") -> ForestSettings:
        """The forests of the section `classify`."""
        given = params.model_dump(include=cls.model_fields.keys() - {"library"})
        return cls(**given, library=library)


def fit_forest(
    training: Sequence[LabelledFeatures], settings: ForestSettings, seed: int, workers: int = -1
) -> RandomForestClassifier:
    """Fit a random forest on the rows of all `training` parts together.

    `workers` is the number of threads, -1 for one per core; it does not change the forest.
    """
    features = np.concatenate([part.features for part in training])
    instruments = np.concatenate([part.instruments for part in training])
    if not len(features):
        raise AnymodalError("no labelled training rows; draw a larger classification subset")
    forest = _forest_class(settings.library)(
        n_estimators=settings.trees,
        max_depth=settings.max_depth,
        min_samples_leaf=settings.min_leaf,
        max_features=settings.max_features,
        random_state=seed,
        n_jobs=workers,
    )
    # threads add up the trees' votes in the order they finish, which changes the last bits and,
    # in a tie, the answer
    return forest.fit(features, instruments).set_params(n_jobs=1)


def macro_f1(
    truth: Sequence[str] | np.ndarray,
    predicted: Sequence[str] | np.ndarray,
    classes: Sequence[str] | np.ndarray,
) -> float:
    """Unweighted mean over `classes` of the F1 score, in [0, 1] (paper, section 3.3).

    A class that is in neither `truth` nor `predicted` counts as 0; no rows at all give 0.
    """
    if not len(truth):
        return 0.0
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, labels=list(classes), average="macro", zero_division=0))


def _forest_class(library: Library) -> type[RandomForestClassifier]:
    # scikit-learn takes a second to import, and much that imports this module grows no forest
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
