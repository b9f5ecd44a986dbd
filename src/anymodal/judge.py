"""From a forest's votes to an answer: calibrated, fused over modalities, or `unknown`.

A judge belongs to one classifier. It is fitted on validation rows (`anymodal.stages.judging`) and
saved beside the forest as `judge.json` and `judge.safetensors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from anymodal.calibration import tempered
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError
from anymodal.fusion import Weights, fuse
from anymodal.novelty import Novelty
from anymodal.storage import read_json, write_bytes, write_json

HEADER, ARRAYS = "judge.json", "judge.safetensors"
LEAST_KNOWN = 0.5
"""An item is known where at least this share of its moments is, those that are blank aside; a
film's moment is where its sound or its picture is."""


@dataclass(frozen=True)
class Judge:
    """Temperatures, weights and thresholds; as it comes, it changes no ranking and knows all."""

    temperatures: Mapping[Modality, float] = field(
        default_factory=lambda: dict.fromkeys(MODALITIES, 1.0)
    )
    floor: float = 1e-6
    """Share of votes that stands in for none."""
    weights: Weights = field(default_factory=Weights)
    novelty: Mapping[Modality, Novelty] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it was fitted on; JSON values."""

    def calibrated(self, modality: Modality, shares: np.ndarray) -> np.ndarray:
        """Probabilities (rows, classes) from a forest's shares of votes (rows, classes)."""
        return tempered(shares, self.temperatures[modality], self.floor)

    def fused(self, probabilities: Mapping[Modality, np.ndarray]) -> np.ndarray:
        """One table of probabilities from calibrated ones of one or both modalities."""
        if len(probabilities) == 1:
            return next(iter(probabilities.values()))
        return fuse(probabilities["audio"], probabilities["image"], self.weights)

    def novelties(self, modality: Modality, embeddings: np.ndarray) -> np.ndarray:
        """Novelty of embeddings (rows, dim) as a multiple of the threshold: above 1 is novel.

        Zeros where no threshold could be fitted.
        """
        novelty = self.novelty.get(modality)
        if novelty is None:
            return np.zeros(len(embeddings))
        return novelty.score(embeddings) / max(novelty.threshold, np.finfo(np.float64).tiny)

    def save(self, folder: Path) -> None:
        """Write both files into `folder`."""
        arrays = {
            f"{modality}.{name}": np.ascontiguousarray(array)
            for modality, one in self.novelty.items()
            for name, array in one.arrays().items()
        }
        write_bytes(folder / ARRAYS, save(arrays))
        told = {
            "temperatures": dict(self.temperatures),
            "floor": self.floor,
            "weights": self.weights._asdict(),
            "thresholds": {m: one.threshold for m, one in self.novelty.items()},
            "facts": dict(self.facts),
        }
        write_json(folder / HEADER, told)

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """Read what `save` wrote."""
        try:
            told = read_json(folder / HEADER)
            arrays = load_file(folder / ARRAYS)
            novelty: dict[Modality, Novelty] = {}
            for modality in MODALITIES:
                if modality in told["thresholds"]:
                    own = {
                        name.partition(".")[2]: array
                        for name, array in arrays.items()
                        if name.startswith(f"{modality}.")
                    }
                    novelty[modality] = Novelty.of(own, float(told["thresholds"][modality]))
            return cls(
                {m: float(told["temperatures"][m]) for m in MODALITIES},
                float(told["floor"]),
                Weights(**{name: float(value) for name, value in told["weights"].items()}),
                novelty,
                told["facts"],
            )
        except (
            OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, AnymodalError
        ) as error:  # fmt: skip
            raise AnymodalError(
                f"{folder} has no readable {HEADER} and {ARRAYS}; save the classifier again"
            ) from error
