"""The joint space in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class JointMap:
    """The plane of greatest variance through joint vectors (principal component analysis).

    It is linear, so whatever comes later is placed by the same map, and moves nothing.
    """

    mean: np.ndarray
    """float64 (dim,)."""
    axes: np.ndarray
    """float64 (2, dim): orthonormal; zeros where the vectors span less."""
    shares: tuple[float, float]
    """Share of the variance that each axis shows, in [0, 1]."""

    @classmethod
    def fit(cls, vectors: np.ndarray) -> JointMap:
        """The map of joint vectors (rows, dim); without rows, everything lies at its middle.

        The same vectors give the same map: each axis points to where its largest loading is
        positive.
        """
        table = np.asarray(vectors, np.float64)
        dim = table.shape[1]
        axes, shares = np.zeros((2, dim)), [0.0, 0.0]
        mean = table.mean(axis=0) if len(table) else np.zeros(dim)
        centred = table - mean
        total = float((centred**2).sum())
        # what rounding leaves of equal vectors is no variance
        if total > 1e-12 * max(1.0, float((table**2).sum())):
            values, directions = np.linalg.eigh(centred.T @ centred)
            for place, column in enumerate(np.argsort(-values, kind="stable")[:2]):
                if values[column] > 1e-12 * total:
                    axis = directions[:, column]
                    axes[place] = axis * np.sign(axis[np.argmax(np.abs(axis))])
                    shares[place] = float(values[column] / total)
        return cls(mean, axes, (shares[0], shares[1]))

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Where joint vectors (rows, dim) lie: float64 (rows, 2)."""
        return (np.asarray(vectors, np.float64) - self.mean) @ self.axes.T


def drawn_rows(groups: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """At most `most` rows of each group (rows,), drawn at random, in their order: indices."""
    chance = np.random.default_rng(seed)
    found = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        found.append(chance.choice(rows, most, replace=False) if len(rows) > most else rows)
    return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)


def anchor(points: np.ndarray) -> np.ndarray:
    """The one of some points (rows, 2), at least one, that is nearest to their median: a name put
    there is on the cloud, even where the median falls between two of its parts."""
    middle = np.median(points, axis=0)
    return points[np.argmin(((points - middle) ** 2).sum(axis=1))]
