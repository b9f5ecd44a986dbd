"""Novelty: how little an embedding is like those that a classifier was trained on.

Embeddings of one kind of thing fill few of their dimensions. What is left of an embedding outside
the principal subspace of the training embeddings is its novelty: the norm of that residual, after
standardising (the residual of ViM; Wang et al. 2022, "ViM: out-of-distribution with virtual-logit
matching", CVPR). It is worked out on the encoder's embeddings: translation maps whatever comes into
the clusters that it has learnt.

Above a threshold, which keeps a given share of the validation rows, an item is called novel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from anymodal.errors import AnymodalError

MOST_ROWS = 20_000
"""Training rows that a subspace is fitted on at most, drawn at random."""
_LEAST_ROWS = 3
_LEAST_SCALE = 1e-3
"""Of the units' root mean square deviation."""


@dataclass(frozen=True)
class Novelty:
    """A principal subspace of one modality's embeddings, and a threshold."""

    mean: np.ndarray
    """float32 (dim,)."""
    scale: np.ndarray
    """float32 (dim,), above 0."""
    components: np.ndarray
    """float32 (subspace, dim), orthonormal rows."""
    threshold: float

    def __post_init__(self) -> None:
        shapes = self.mean.shape, self.scale.shape, self.components.shape[1:]
        if self.mean.ndim != 1 or self.components.ndim != 2 or len(set(shapes)) > 1:
            raise AnymodalError(
                f"mean {self.mean.shape}, scale {self.scale.shape} and components "
                f"{self.components.shape} are not of the same embeddings"
            )

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Novelty of embeddings (rows, dim), float64 (rows,), 0 or more."""
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.mean):
            raise AnymodalError(
                f"novelty is told of embeddings (rows, {len(self.mean)}), not {embeddings.shape}"
            )
        standard = (embeddings.astype(np.float64) - self.mean) / self.scale
        inside = standard @ self.components.T.astype(np.float64)
        # Pythagoras; rounding may leave it just below 0
        squares = (standard**2).sum(axis=1) - (inside**2).sum(axis=1)
        return np.sqrt(np.maximum(squares, 0.0))

    def known(self, embeddings: np.ndarray) -> np.ndarray:
        """Which rows are not novel, bool (rows,)."""
        return self.score(embeddings) <= self.threshold

    def arrays(self) -> dict[str, np.ndarray]:
        """What to save, besides the threshold."""
        return {"mean": self.mean, "scale": self.scale, "components": self.components}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], threshold: float) -> Novelty:
        """From what `arrays` gave."""
        return cls(arrays["mean"], arrays["scale"], arrays["components"], threshold)


def fit_novelty(
    train: np.ndarray, valid: np.ndarray, keep: float, subspace: int, seed: int
) -> Novelty | None:
    """Fit the subspace on training embeddings (rows, dim) and the threshold on validation ones.

    `keep` is the share of the validation rows that must not be novel, above 0 and at most 1;
    `subspace` its dimensions at most: fewer where rows or dimensions are fewer, since a subspace of
    all training rows leaves nothing of them outside. None where rows are too few to tell, or all
    the same.
    """
    # here, not above: what only scores does without scikit-learn
    from sklearn.decomposition import PCA

    if not 0 < keep <= 1:
        raise AnymodalError(f"the share to keep must be above 0 and at most 1, not {keep}")
    if len(train) < _LEAST_ROWS or not len(valid):
        return None
    chance = np.random.default_rng(seed)
    if len(train) > MOST_ROWS:
        train = train[np.sort(chance.choice(len(train), MOST_ROWS, replace=False))]
    mean = train.mean(axis=0, dtype=np.float64)
    scale = train.std(axis=0, dtype=np.float64)
    dims = min(subspace, (len(train) - 1) // 2, train.shape[1] - 1)
    if dims < 1 or not scale.any():
        return None
    # units that hardly vary would make much of rounding: packs hold float16
    scale = np.maximum(scale, _LEAST_SCALE * np.sqrt(np.mean(scale**2)))
    reduction = PCA(dims, random_state=seed).fit((train - mean) / scale)
    plain = Novelty(
        mean.astype(np.float32), scale.astype(np.float32),
        reduction.components_.astype(np.float32), np.inf,
    )  # fmt: skip
    # `higher`: the threshold is a row's own score, so at least the share asked for is kept
    threshold = float(np.quantile(plain.score(valid), keep, method="higher"))
    return Novelty(plain.mean, plain.scale, plain.components, threshold)
