"""Relevance between all clips of two sides at once.

Many clips carry the same labels, so relevance is computed between distinct label sets, a block of
query sets at a time. The ideal ranking needs no sorting: it follows from how many targets have each
of the 22 levels of relevance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.ontology.graph import MAX_DISTANCE, graded_labels, ontology

Labels = Sequence[Sequence[str]]

LEVELS = np.arange(MAX_DISTANCE + 1)
"""All values of relevance."""

_BLOCK = 2**23
"""Most entries of a block's working arrays: 64 MiB of int64."""


class LabelSets:
    """Clips grouped by equal labels, top labels removed.

    `sets` are the distinct label sets, `of_clip` intp (clips,) is each clip's set, `counts` int64
    (sets,) the number of clips of each set.
    """

    def __init__(self, labels: Labels) -> None:
        places: dict[tuple[str, ...], int] = {}
        of_clip = [places.setdefault(graded_labels(mids), len(places)) for mids in labels]
        self.sets = tuple(places)
        self.of_clip = np.array(of_clip, dtype=np.intp)
        self.counts = np.bincount(self.of_clip, minlength=len(places))

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """All sets' rows of the distance matrix end to end, and where each set starts.

        An empty set is given one row past the matrix, so that no set is empty.
        """
        known = ontology()
        rows = [known.rows(labels) if labels else [len(known)] for labels in self.sets]
        starts = np.cumsum([0, *map(len, rows)])[:-1]
        return np.concatenate([np.empty(0, dtype=np.intp), *rows]), starts


@dataclass(frozen=True)
class Block:
    """Some label sets of the queries against all label sets of the targets."""

    relevance: np.ndarray
    """uint8 (query sets, target sets), 0 to 21."""
    ideal: np.ndarray
    """Discounted gain of the best order of the whole gallery, float64 (query sets,)."""
    mean_gain: np.ndarray
    """Mean gain over the whole gallery, float64 (query sets,)."""


class Grading:
    """Relevance of one side's clips to the other's, cut off at k answers.

    `k` is clipped to the number of targets; `discounts` (k,) is the weight of each rank.
    """

    def __init__(self, query_labels: Labels, target_labels: Labels, k: int) -> None:
        positive(k, "k")
        self.queries, self.targets = LabelSets(query_labels), LabelSets(target_labels)
        self.k = min(k, len(self.targets.of_clip))
        self.discounts = 1 / np.log2(np.arange(self.k) + 2)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, Block]]:
        """Yield (queries, their rows in the block, the block), each query once, by label set."""
        query_rows, query_starts = self.queries.rows()
        target_rows, target_starts = self.targets.rows()
        distances = np.pad(ontology().distance_matrix, (0, 1), constant_values=MAX_DISTANCE)
        by_set = np.argsort(self.queries.of_clip, kind="stable")
        set_ends = np.cumsum(self.queries.counts)
        sets = len(self.queries.sets)
        step = max(1, _BLOCK // max(1, len(target_rows)))
        for first in range(0, sets, step):
            last = min(first + step, sets)
            begin = query_starts[first]
            end = query_starts[last] if last < sets else len(query_rows)
            nearest = np.minimum.reduceat(
                distances[query_rows[begin:end]], query_starts[first:last] - begin, axis=0
            )
            if len(target_rows):
                # targets lead here because reduceat is fast along the first axis alone
                nearest = np.minimum.reduceat(nearest.T[target_rows], target_starts, axis=0).T
            else:
                nearest = nearest[:, :0]
            queries = by_set[set_ends[first] - self.queries.counts[first] : set_ends[last - 1]]
            yield queries, self.queries.of_clip[queries] - first, self._block(nearest)

    def _block(self, nearest: np.ndarray) -> Block:
        relevance = MAX_DISTANCE - nearest
        sets, levels = len(relevance), len(LEVELS)
        cells = relevance + levels * np.arange(sets)[:, None]
        weights = np.broadcast_to(self.targets.counts, cells.shape)
        counts = np.bincount(cells.ravel(), weights.ravel(), minlength=sets * levels)
        counts = counts.reshape(sets, levels)
        # the ideal order takes level after level from the top until k ranks are full
        filled = np.cumsum(counts[:, ::-1], axis=1).clip(max=self.k).astype(np.intp)
        filled = np.pad(filled, ((0, 0), (1, 0)))
        weight_up_to = np.concatenate([[0.0], np.cumsum(self.discounts)])
        ideal = (np.diff(weight_up_to[filled], axis=1) * LEVELS[::-1]).sum(axis=1)
        mean_gain = (counts * LEVELS).sum(axis=1) / max(1, len(self.targets.of_clip))
        return Block(relevance, ideal, mean_gain)


def positive(value: int, name: str) -> None:
    """Raise `AnymodalError` unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise AnymodalError(f"{name} must be a whole number of at least 1, not {value!r}")
