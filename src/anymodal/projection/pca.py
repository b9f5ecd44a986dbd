"""PCA to the joint dimension: the baseline that matches dimensions only (paper, section 2.2).

Each modality has its own PCA, on centred embeddings. The output is not brought to unit length, as
the distances of the paper's Fig. 4 (up to 17.5) show. Where the training rows have fewer than `dim`
directions of variance, the remaining components are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.projection.artifact import Artifact, Origin
from anymodal.projection.base import Projection, check_embeddings

_NO_VARIANCE = 1e-12
"""A component with a smaller share of the largest one's variance is rounding, not data."""
_ROUNDING = 1e-7
"""float32's resolution: a deviation below this share of the largest mean is rounding too."""


@dataclass(frozen=True)
class Axes:
    """One modality's PCA."""

    mean: np.ndarray
    """(d,) float64."""
    components: np.ndarray
    """(dim, d) float64, orthonormal rows by falling variance, then zero rows."""
    variance_ratio: np.ndarray
    """(dim,) float64, each component's share of the variance."""


class PCAProjection(Projection):
    """A fitted PCA of each modality."""

    kind = "pca"

    def __init__(self, axes: Mapping[Modality, Axes], origin: Origin | None = None) -> None:
        self.axes, self.origin = dict(axes), origin
        self.dim = len(self.axes["audio"].components)
        self.dims = {modality: len(own.mean) for modality, own in self.axes.items()}

    def _projector(self, modality: Modality) -> Callable[[np.ndarray], np.ndarray]:
        axes = self.axes[modality]
        return lambda x: (x - axes.mean) @ axes.components.T

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            f"{modality}.{name}": getattr(axes, name)
            for modality, axes in self.axes.items()
            for name in ("mean", "components", "variance_ratio")
        }

    @classmethod
    def from_artifact(cls, artifact: Artifact, folder: str | Path) -> PCAProjection:
        """The PCA that `artifact`, read from `folder`, holds."""
        axes: dict[Modality, Axes] = {}
        for modality in MODALITIES:
            features, dim = artifact.origin.encoder(modality).dim, artifact.dim
            shapes = {"mean": (features,), "components": (dim, features), "variance_ratio": (dim,)}
            arrays = {name: artifact.arrays.get(f"{modality}.{name}") for name in shapes}
            if any(a is None or a.shape != shapes[n] for n, a in arrays.items()):
                raise AnymodalError(
                    f"the projection in {folder} holds other arrays than its projection.json "
                    "says: run `anymodal translate` again"
                )
            axes[modality] = Axes(**{n: np.asarray(a, np.float64) for n, a in arrays.items()})
        return cls(axes, artifact.origin)


def fit_pca(
    audio: np.ndarray, image: np.ndarray, dim: int = 128, origin: Origin | None = None
) -> PCAProjection:
    """Fit both modalities' PCA on the training rows `audio` (n, da) and `image` (m, di).

    Raises `AnymodalError` for fewer than two rows and for non-finite values.
    """
    return PCAProjection(
        {"audio": _fit(audio, "audio", dim), "image": _fit(image, "image", dim)}, origin
    )


def _fit(x: np.ndarray, modality: Modality, dim: int) -> Axes:
    from sklearn.decomposition import PCA

    x = check_embeddings(x, modality)
    rows, features = x.shape
    if rows < 2 or features < 1:
        raise AnymodalError(f"PCA needs at least two {modality} rows, not {rows}")
    mean = x.mean(axis=0, dtype=np.float64)
    # centred here: the covariance solver subtracts means of squares, which loses digits
    centred = x - mean
    # the cheaper of the two exact, deterministic solvers
    solver = "covariance_eigh" if rows > features else "full"
    with np.errstate(invalid="ignore", divide="ignore"):  # rows all equal: no variance to share
        pca = PCA(min(dim, rows, features), svd_solver=solver).fit(centred)
    variance = np.maximum(pca.explained_variance_, 0.0)
    floor = max(_NO_VARIANCE * variance[0], (_ROUNDING * np.abs(mean).max()) ** 2)
    rank = int((variance > floor).sum())
    components = np.zeros((dim, features))
    components[:rank] = pca.components_[:rank]
    ratio = np.zeros(dim)
    ratio[:rank] = pca.explained_variance_ratio_[:rank]
    return Axes(mean, components, ratio)
