"""What a classifier holds to turn votes into probabilities, and to call items unknown.

Novelty is the norm of the part of a standardised embedding outside the principal subspace of the
training embeddings (the residual of ViM; Wang et al. 2022, "ViM: out-of-distribution with
virtual-logit matching", CVPR). It uses the encoder's embeddings, since translation maps any input
into the clusters that it has learnt. The threshold keeps a given share of the validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, InstanceOf, field_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from anymodal.classifier.calibration import tempered
from anymodal.classifier.fusion import Weights, fuse
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Record
from anymodal.core.storage import write_bytes

HEADER, ARRAYS = "calibrator.json", "calibrator.safetensors"
MOST_ROWS = 20_000
"""Training rows that a subspace is fitted on at most, drawn at random."""
_LEAST_ROWS = 3
_LEAST_SCALE = 1e-3
"""Of the units' root mean square deviation."""


@dataclass(frozen=True)
class Novelty:
    """A principal subspace of one modality's embeddings, and a threshold."""

    mean: np.ndarray
    scale: np.ndarray
    """As the mean float32 (dim,); above 0."""
    components: np.ndarray
    """float32 (subspace, dim), orthonormal rows."""
    threshold: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", float(self.threshold))
        if not self.mean.shape == self.scale.shape == self.components.shape[1:]:
            raise AnymodalError("mean, scale and components are not of the same embeddings")

    @property
    def divisor(self) -> float:
        """The threshold, or the smallest number above 0."""
        return max(self.threshold, float(np.finfo(np.float64).tiny))

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the novelty of embeddings (rows, dim), float64 (rows,), 0 or more."""
        if embeddings.ndim != 2 or embeddings.shape[1:] != self.mean.shape:
            raise AnymodalError(
                f"novelty takes embeddings (rows, {len(self.mean)}), not {embeddings.shape}"
            )
        standard = (embeddings.astype(np.float64) - self.mean) / self.scale
        inside = standard @ self.components.T.astype(np.float64)
        # Pythagoras; rounding may leave it just below 0
        squares = (standard**2).sum(axis=1) - (inside**2).sum(axis=1)
        return np.sqrt(np.maximum(squares, 0.0))


def fit_novelty(
    train: np.ndarray, valid: np.ndarray, keep: float, subspace: int, seed: int
) -> Novelty | None:
    """Fit the subspace on training embeddings (rows, dim) and the threshold on validation ones.

    `keep` is the share of the validation rows that must not be novel, above 0 and at most 1.
    `subspace` is its dimensions at most; fewer for few rows, since a subspace of all training rows
    leaves nothing of them outside. Returns None where rows are too few, or all the same.
    """
    # imported here: scoring works without scikit-learn
    from sklearn.decomposition import PCA

    if not 0 < keep <= 1:
        raise AnymodalError(f"the share to keep must be above 0 and at most 1, not {keep}")
    if len(train) < _LEAST_ROWS or not len(valid):
        return None
    if len(train) > MOST_ROWS:
        rng = np.random.default_rng(seed)
        train = train[np.sort(rng.choice(len(train), MOST_ROWS, replace=False))]
    mean = train.mean(axis=0, dtype=np.float64)
    scale = train.std(axis=0, dtype=np.float64)
    dims = min(subspace, (len(train) - 1) // 2, train.shape[1] - 1)
    if dims < 1 or not scale.any():
        return None
    # units that hardly vary would make much of rounding: packs hold float16
    scale = np.maximum(scale, _LEAST_SCALE * np.sqrt(np.mean(scale**2)))
    reduction = PCA(dims, random_state=seed).fit((train - mean) / scale)
    space = Novelty(
        mean.astype(np.float32),
        scale.astype(np.float32),
        reduction.components_.astype(np.float32),
        np.inf,
    )
    # `higher`: the threshold is a row's own score, so at least the share asked for is kept
    return replace(space, threshold=float(np.quantile(space.score(valid), keep, method="higher")))


class OpenSetCalibrator(Record):
    """Temperatures, weights and thresholds of one classifier, fitted on validation rows
    (`anymodal.classifier.fit`). The default changes no ranking and calls everything known."""

    temperatures: dict[Modality, float] = dict.fromkeys(MODALITIES, 1.0)
    floor: float = 1e-6
    """Replaces a share of votes of 0, whose logarithm does not exist."""
    weights: Weights = Weights()
    facts: dict[str, Any] = Field(default={})
    """What it was fitted on; JSON values."""
    novelty: dict[Modality, InstanceOf[Novelty]] = Field(default={}, exclude=True)

    @field_validator("temperatures")
    @classmethod
    def _complete(cls, temperatures: dict[Modality, float]) -> dict[Modality, float]:
        if len(temperatures) < len(MODALITIES):
            raise ValueError("one temperature per modality is needed")
        return temperatures

    def calibrated(self, modality: Modality, shares: np.ndarray) -> np.ndarray:
        """Return probabilities (..., classes) from a forest's shares of votes (..., classes)."""
        return tempered(shares, self.temperatures[modality], self.floor)

    def fused(self, probabilities: Mapping[Modality, np.ndarray]) -> np.ndarray:
        """Return the probabilities of one modality as they are, those of both fused."""
        if len(probabilities) == 1:
            return next(iter(probabilities.values()))
        return fuse(probabilities["audio"], probabilities["image"], self.weights)

    def novelties(self, modality: Modality, embeddings: np.ndarray) -> np.ndarray:
        """Return the novelty of embeddings (rows, dim) as a multiple of the threshold, float64
        (rows,): above 1 is novel. Zeros where no threshold could be fitted."""
        novelty = self.novelty.get(modality)
        if novelty is None:
            return np.zeros(len(embeddings))
        return novelty.score(embeddings) / novelty.divisor

    def save(self, folder: Path) -> None:
        """Write `calibrator.json` and `calibrator.safetensors` into `folder`."""
        arrays = {
            f"{modality}.{name}": np.array(value, order="C")
            for modality, novelty in self.novelty.items()
            for name, value in vars(novelty).items()
        }
        write_bytes(folder / ARRAYS, save(arrays))
        self.write(folder / HEADER)

    @classmethod
    def load(cls, folder: Path) -> OpenSetCalibrator:
        """Read what `save` wrote."""
        try:
            arrays: dict[str, Any] = load_file(folder / ARRAYS)
            novelty = {
                m: Novelty(*(arrays[f"{m}.{part.name}"] for part in fields(Novelty)))
                for m in MODALITIES
                if f"{m}.mean" in arrays
            }
            return cls.read(folder / HEADER, "classify").model_copy(update={"novelty": novelty})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AnymodalError) as error:
            raise AnymodalError(
                f"{folder} has no readable {HEADER} and {ARRAYS}; save the classifier again"
            ) from error
