"""How a joint space lies: distances between the classes' centres in both modalities.

Goal: to see whether a class's sounds lie with its pictures (paper, sections 3.3 and 4.3,
Fig. 4).

Conventions
-----------
Embeddings   (items, d): projections, as the projection gives them, of the test split of the
             classification subset. The centroid of a cluster (one class in one modality) is their
             plain mean: means of unit vectors are not brought back to unit length.
Distance     Euclidean. The paper says only "pair-wise distance", but its PCA distances reach 17.5,
             which no cosine distance does. PCA keeps its lengths and translation gives unit
             length, so distances of the two spaces do not compare; the numbers below, free of
             scale, do.
Order        `distances` has the clusters by modality, audio first, then by class in the order of
             `classes` (Fig. 4, left); `order("instrument")` gives the rows by class, then by
             modality (right), so that each class is a square of 2 × 2 on the diagonal.
Absent       A class without items in a modality has no centroid there: NaN distances. The numbers
             rest on the `shared` classes, those that both modalities have; they are None where
             undefined.

Numbers
-------
same, different    mean distance between an audio and an image centroid of the same class, and of
                   different ones; their `ratio` is 0 where a class's centroids coincide and about
                   1 where modalities know nothing of each other's classes.
nearest centroid   share of items whose nearest centroid of the other modality is of their class,
                   macro-averaged over classes; `chance` is one over the number of shared classes.

* :func:`centroids`, :func:`centroid_distances`, :func:`nearest_centroid_accuracy`: the kernels
* :func:`structure`: all of it for one projection
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.spatial.distance import cdist

from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError
from anymodal.resampling import Names
from anymodal.statistics import encode


@dataclass(frozen=True)
class Structure:
    """Where the clusters of one joint space lie."""

    classes: tuple[str, ...]
    counts: dict[Modality, tuple[int, ...]]
    """Items of each class, by modality."""
    distances: np.ndarray
    """float64 (2 × classes, 2 × classes), symmetric; see the module's order."""
    shared: tuple[str, ...]
    """Classes that both modalities have."""
    same: float | None
    """None without a shared class."""
    different: float | None
    """None with fewer than two shared classes."""
    ratio: float | None
    """`same` / `different`; None where `different` is None or 0."""
    audio_to_image: float | None
    """Nearest-centroid accuracy of audio items among image centroids; None without a shared
    class."""
    image_to_audio: float | None
    """The other way round."""
    chance: float | None

    @property
    def accuracy(self) -> float | None:
        """Mean of the two directions."""
        if self.audio_to_image is None or self.image_to_audio is None:
            return None
        return (self.audio_to_image + self.image_to_audio) / 2

    @property
    def clusters(self) -> tuple[tuple[Modality, str], ...]:
        """Modality and class of each row of `distances`."""
        return tuple((modality, name) for modality in MODALITIES for name in self.classes)

    def order(self, by: Literal["modality", "instrument"]) -> np.ndarray:
        """Rows of the clusters that have items, intp, sorted first by modality or by instrument.

        `distances[np.ix_(order, order)]` is the matrix of Fig. 4.
        """
        places = np.arange(len(self.clusters), dtype=np.intp).reshape(len(MODALITIES), -1)
        if by not in ("modality", "instrument"):
            raise AnymodalError(f"order is by modality or instrument, not {by!r}")
        rows = (places if by == "modality" else places.T).ravel()
        there = np.concatenate([self.counts[modality] for modality in MODALITIES])
        return rows[there[rows] > 0]

    def to_json(self) -> dict[str, Any]:
        """As plain lists, numbers and strings, NaN as None."""
        rows = [[None if math.isnan(d) else d for d in row] for row in self.distances.tolist()]
        counts = {modality: list(of_one) for modality, of_one in self.counts.items()}
        lists = {"classes": list(self.classes), "shared": list(self.shared)}
        return {**asdict(self), **lists, "counts": counts, "distances": rows}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Structure:
        """The structure that `to_json` gave `value` of."""
        try:
            rows = [
                [math.nan if d is None else float(d) for d in row] for row in value["distances"]
            ]
            size = len(MODALITIES) * len(value["classes"])
            return cls(
                **{
                    **value,
                    "classes": tuple(value["classes"]),
                    "shared": tuple(value["shared"]),
                    "counts": {m: tuple(value["counts"][m]) for m in MODALITIES},
                    "distances": np.array(rows, dtype=np.float64).reshape(size, size),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AnymodalError(
                f"no structure of a joint space ({type(error).__name__}: {error}); compute it again"
            ) from None


def centroids(embeddings: np.ndarray, instruments: Names, classes: Names) -> np.ndarray:
    """Mean of the embeddings (items, d) of each class, float64 (classes, d); NaN without items."""
    rows, codes = _checked(embeddings, instruments, classes)
    counts = np.bincount(codes, minlength=len(classes))
    sums = np.zeros((len(classes), rows.shape[1]))
    np.add.at(sums, codes, rows)
    means = np.full(sums.shape, np.nan)
    return np.divide(sums, counts[:, None], out=means, where=counts[:, None] > 0)


def centroid_distances(audio: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Euclidean distances between all centroids (classes, d) of both modalities, float64
    (2 × classes, 2 × classes), audio first; NaN for centroids that are NaN."""
    if audio.shape != image.shape:
        raise AnymodalError(
            f"audio centroids {audio.shape} and image centroids {image.shape} do not compare; "
            "both must be of the same classes in one joint space"
        )
    both = np.concatenate([audio, image])
    # cdist works on differences, which leaves the diagonal 0 and the matrix symmetric
    return cdist(both, both)


def nearest_centroid_accuracy(
    embeddings: np.ndarray, instruments: Names, centres: np.ndarray, classes: Names
) -> float | None:
    """Share of items (items, d) nearest to their own class among `centres` (classes, d).

    Mean over the classes that have both items and a centre; items and centres of other classes
    take no part. Of equally near centres the first counts. None where there is no such class.
    """
    rows, codes = _checked(embeddings, instruments, classes)
    if centres.shape != (len(classes), rows.shape[1]):
        raise AnymodalError(
            f"centres {centres.shape} do not fit {len(classes)} classes of embeddings "
            f"{rows.shape}; both must be of one joint space"
        )
    counts = np.bincount(codes, minlength=len(classes))
    shared = np.flatnonzero((counts > 0) & ~np.isnan(centres).any(axis=1))
    if not len(shared):
        return None
    taking_part = np.isin(codes, shared)
    rows, codes = rows[taking_part], codes[taking_part]
    nearest = shared[cdist(rows, centres[shared]).argmin(axis=1)]
    hits = np.bincount(codes[nearest == codes], minlength=len(classes))
    return float((hits[shared] / counts[shared]).mean())


def structure(
    embeddings: Mapping[Modality, np.ndarray],
    instruments: Mapping[Modality, Names],
    classes: Names,
) -> Structure:
    """The structure of one joint space, from each modality's `embeddings` (items, d) and the
    `instruments` (items,) of their rows.

    Raises `AnymodalError` for values that are not finite, for instruments that `classes` does not
    name, and where the modalities differ in dimensions.
    """
    missing = [m for m in MODALITIES if m not in embeddings or m not in instruments]
    if missing:
        raise AnymodalError(f"no {' and no '.join(missing)} embeddings or instruments; give both")
    names = tuple(str(name) for name in classes)
    centres = {m: centroids(embeddings[m], instruments[m], names) for m in MODALITIES}
    counts: dict[Modality, tuple[int, ...]] = {
        m: tuple(np.bincount(encode(instruments[m], names), minlength=len(names)).tolist())
        for m in MODALITIES
    }
    distances = centroid_distances(centres["audio"], centres["image"])
    shared = [place for place in range(len(names)) if all(counts[m][place] for m in MODALITIES)]
    crossing = distances[: len(names), len(names) :][np.ix_(shared, shared)]
    own = np.eye(len(shared), dtype=bool)
    same, different = _mean(crossing[own]), _mean(crossing[~own])
    return Structure(
        classes=names,
        counts=counts,
        distances=distances,
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
    try:
        rows = np.asarray(embeddings, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise AnymodalError(f"embeddings are no matrix of numbers ({error})") from None
    if rows.ndim != 2 or len(rows) != len(instruments):
        raise AnymodalError(
            f"embeddings {rows.shape} and {len(instruments)} instruments do not describe the same "
            "items; give a matrix (items, dimensions) and one instrument a row"
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
