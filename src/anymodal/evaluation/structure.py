"""How a joint space lies: distances between the classes' centroids in both modalities.

Whether a class's audio lies with its images (paper, sections 3.3 and 4.3, Fig. 4). A centroid is
the plain mean of the embeddings of one class in one modality; distances are Euclidean. Distances of
a PCA and a translated space do not compare; ratios and accuracies do. They are of the classes that
both modalities have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Measured, Record
from anymodal.evaluation.classification import Regime
from anymodal.evaluation.per_class import Correlation
from anymodal.evaluation.resampling import Names
from anymodal.evaluation.statistics import encode


class SpaceStructure(Record):
    """Where the classes of one joint space lie."""

    classes: tuple[str, ...]
    counts: dict[Modality, tuple[int, ...]]
    """Items of each class."""
    distances: tuple[tuple[float | None, ...], ...]
    """(2 × classes, 2 × classes), by modality, audio first, then by class; None without items."""
    shared: tuple[str, ...]
    """Classes that both modalities have."""
    same: float | None
    """Mean distance between the audio and the image centroid of a class."""
    different: float | None
    """Mean distance between an audio and an image centroid of different classes."""
    ratio: float | None
    """`same` / `different`: 0 where a class's centroids coincide, about 1 without alignment."""
    audio_to_image: float | None
    """Share of audio items whose nearest image centroid is of their class, mean over classes."""
    image_to_audio: float | None
    chance: float | None

    @property
    def matrix(self) -> np.ndarray:
        """`distances` as float64 with NaN."""
        size = len(MODALITIES) * len(self.classes)
        return np.array(self.distances, dtype=np.float64).reshape(size, size)

    @property
    def accuracy(self) -> float | None:
        """Mean of the nearest-centroid accuracies of both directions."""
        if self.audio_to_image is None or self.image_to_audio is None:
            return None
        return (self.audio_to_image + self.image_to_audio) / 2

    @property
    def clusters(self) -> tuple[tuple[Modality, str], ...]:
        """Modality and class of each row of `distances`."""
        return tuple((modality, name) for modality in MODALITIES for name in self.classes)

    def order(self, by: Literal["modality", "instrument"]) -> np.ndarray:
        """Rows of the clusters that have items, intp: `matrix[np.ix_(order, order)]` is Fig. 4."""
        places = np.arange(len(self.clusters), dtype=np.intp).reshape(len(MODALITIES), -1)
        rows = (places if by == "modality" else places.T).ravel()
        counts = np.concatenate([self.counts[modality] for modality in MODALITIES])
        return rows[counts[rows] > 0]


class SeedStructure(SpaceStructure):
    """The structure of one training's joint space."""

    seed: int


class ClassCorrelation(Correlation):
    """How MMT's F1 of a class goes with how often the translation saw the class."""

    target: Modality
    regime: Regime
    counts_of: Modality


class StructureResult(Measured):
    """What stage `structure` measured on the test split of the classification subset."""

    classes: tuple[str, ...]
    test_rows: dict[Modality, int]
    pca: SpaceStructure
    translated: tuple[SeedStructure, ...]
    label_counts: dict[Modality, tuple[int, ...]]
    """Clips of each class that trained the translation."""
    correlations: tuple[ClassCorrelation, ...]


def centroids(embeddings: np.ndarray, instruments: Names, classes: Names) -> np.ndarray:
    """Mean of the embeddings (items, d) of each class, float64 (classes, d); NaN without items."""
    rows, codes = _checked(embeddings, instruments, classes)
    counts = np.bincount(codes, minlength=len(classes))
    sums = np.zeros((len(classes), rows.shape[1]))
    np.add.at(sums, codes, rows)
    means = np.full(sums.shape, np.nan)
    return np.divide(sums, counts[:, None], out=means, where=counts[:, None] > 0)


def nearest_centroid_accuracy(
    embeddings: np.ndarray, instruments: Names, centres: np.ndarray, classes: Names
) -> float | None:
    """Share of items (items, d) nearest to their own class among `centres` (classes, d).

    Mean over the classes that have both items and a centre; None where there is none.
    """
    rows, codes = _checked(embeddings, instruments, classes)
    counts = np.bincount(codes, minlength=len(classes))
    shared = np.flatnonzero((counts > 0) & ~np.isnan(centres).any(axis=1))
    if not len(shared):
        return None
    kept = np.isin(codes, shared)
    rows, codes = rows[kept], codes[kept]
    nearest = shared[cdist(rows, centres[shared]).argmin(axis=1)]
    hits = np.bincount(codes[nearest == codes], minlength=len(classes))
    return float((hits[shared] / counts[shared]).mean())


def space_structure(
    embeddings: Mapping[Modality, np.ndarray],
    instruments: Mapping[Modality, Names],
    classes: Names,
) -> SpaceStructure:
    """The structure of one joint space, from each modality's embeddings (items, dim) and the
    instruments (items,) of their rows.

    Raises `AnymodalError` for values that are not finite and for instruments that `classes` lacks.
    """
    names = tuple(str(name) for name in classes)
    centres = {m: centroids(embeddings[m], instruments[m], names) for m in MODALITIES}
    counts: dict[Modality, tuple[int, ...]] = {
        m: tuple(np.bincount(encode(instruments[m], names), minlength=len(names)).tolist())
        for m in MODALITIES
    }
    both = np.concatenate([centres["audio"], centres["image"]])
    # cdist works on differences, which leaves the diagonal 0 and the matrix symmetric
    distances = cdist(both, both)
    shared = [place for place in range(len(names)) if all(counts[m][place] for m in MODALITIES)]
    crossing = distances[: len(names), len(names) :][np.ix_(shared, shared)]
    diagonal = np.eye(len(shared), dtype=bool)
    same, different = _mean(crossing[diagonal]), _mean(crossing[~diagonal])
    rows = (tuple(None if np.isnan(d) else d for d in row) for row in distances.tolist())
    return SpaceStructure(
        classes=names,
        counts=counts,
        distances=tuple(rows),
        shared=tuple(names[place] for place in shared),
        same=same,
        different=different,
        ratio=same / different if same is not None and different else None,
        audio_to_image=nearest_centroid_accuracy(
            embeddings["audio"], instruments["audio"], centres["image"], names
        ),
        image_to_audio=nearest_centroid_accuracy(
            embeddings["image"], instruments["image"], centres["audio"], names
        ),
        chance=1 / len(shared) if shared else None,
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _checked(
    embeddings: np.ndarray, instruments: Names, classes: Names
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings as float64 (items, d) and each item's place in `classes`, intp (items,)."""
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(instruments):
        raise AnymodalError(
            f"embeddings {rows.shape} and {len(instruments)} instruments do not describe the same "
            "items; give a matrix (items, dim) and one instrument per row"
        )
    if not np.isfinite(rows).all():
        raise AnymodalError("embeddings hold NaN or infinity; embed and project again")
    codes = encode(instruments, classes)
    unknown = np.flatnonzero(codes == len(classes))
    if len(unknown):
        raise AnymodalError(
            f"{list(instruments)[unknown[0]]!r} ({len(unknown)} item(s) in all) is none of the "
            f"{len(classes)} classes; add it or drop its items"
        )
    return rows, codes
