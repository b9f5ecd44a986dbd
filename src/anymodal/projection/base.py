"""What every projection is: two maps, one per modality, from embeddings into one joint space.

Input is (n, d) finite numbers, d the modality's embedding length; output float32 (n, dim). The work
is done in float64 on the CPU and rounded at the end, so that a row's projection does not depend on
its batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import fingerprint
from anymodal.core.modality import MODALITIES, Modality
from anymodal.projection.artifact import Artifact, Kind, Origin, write_artifact

BLOCK = 4096
"""Rows projected at a time; bounds memory, changes no result."""


class Projection(ABC):
    """Translation or PCA, fitted."""

    kind: ClassVar[Kind]
    dim: int
    """Dimensions of the joint space."""
    dims: Mapping[Modality, int]
    """Length of each modality's embeddings."""
    origin: Origin | None = None
    """Needed for saving."""

    @abstractmethod
    def _projector(self, modality: Modality) -> Callable[[np.ndarray], np.ndarray]:
        """The modality's map of float64 rows to float64 rows."""

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """What to save."""

    @property
    def fingerprint(self) -> str:
        """Hash of the kind and the weights."""
        return fingerprint(self.kind, *sorted(self._arrays().items()))

    def project(self, modality: Modality, x: np.ndarray) -> np.ndarray:
        """Project `x` (n, dims[modality]) to float32 (n, dim).

        Raises `AnymodalError` for an unknown modality, a wrong shape and non-finite values.
        """
        if modality not in MODALITIES:
            raise AnymodalError(f"no modality {modality!r}; give {' or '.join(MODALITIES)}")
        x = check_embeddings(x, modality, self.dims[modality])
        result = np.empty((len(x), self.dim), dtype=np.float32)
        project = self._projector(modality)
        for start in range(0, len(x), BLOCK):
            rows = slice(start, start + BLOCK)
            result[rows] = project(x[rows].astype(np.float64))
        return result

    def save(self, folder: str | Path) -> None:
        """Write both modalities' maps, scalers and encoder versions as one artifact."""
        if self.origin is None:
            raise AnymodalError("a projection without an origin cannot be saved: set .origin first")
        for modality in MODALITIES:
            ref = self.origin.encoder(modality)
            if ref.dim != self.dims[modality]:
                raise AnymodalError(
                    f"origin says {ref.name} gives {ref.dim} dimensions, but the projection "
                    f"takes {self.dims[modality]} for {modality}"
                )
        write_artifact(folder, Artifact(self.kind, self.dim, self.origin, self._arrays()))


def check_embeddings(x: np.ndarray, modality: Modality, dim: int | None = None) -> np.ndarray:
    """Return `x` as a 2-D numeric array, unchanged where it is one, or raise `AnymodalError`."""
    x = np.asarray(x)
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise AnymodalError(
            f"{modality} embeddings must be a (rows, dimensions) array of numbers, "
            f"not {x.dtype} of shape {x.shape}"
        )
    if dim is not None and x.shape[1] != dim:
        raise AnymodalError(
            f"the projection takes {modality} embeddings of {dim} dimensions, not {x.shape[1]}: "
            "did another encoder make them?"
        )
    for start in range(0, len(x), BLOCK):
        finite = np.isfinite(x[start : start + BLOCK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise AnymodalError(
                f"{modality} embedding {row} holds a value that is not finite: embed it again"
            )
    return x
