"""HNSW graphs for large collections, one per modality, with their recall measured.

A filter behind one common graph would discard most of what it finds, as a query mostly asks for the
other modality. Recall is measured with the collection's own rows as queries, of both modalities: a
graph that answers well within a modality may answer badly across.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anymodal.core.modality import Modality
from anymodal.search.nearest import Nearest, import_faiss

LEAST = 1_000
"""Rows of a modality below which no graph is built: exact search is as fast."""
STALE = 0.1
"""Share of removed rows above which a graph is built anew."""
K = 10
"""Answers a query whose recall is measured."""
TARGET = 0.95
"""Recall that the search's breadth is chosen for."""
LINKS = 32
"""Links a node (HNSW's M)."""
CONSTRUCTION = 128
"""Breadth of the search that finds them (efConstruction)."""
BREADTHS = (16, 32, 64, 128, 256, 512, 1024)
"""Breadths (efSearch) to choose from."""
_SAMPLE = 500
"""Queries a modality that the breadth is chosen by, and as many others that measure its recall."""
_BLOCK = 8192

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class GraphFacts:
    """What an index states of a graph."""

    breadth: int
    """efSearch."""
    k: int
    """The recall is that of the first k answers."""
    recall: dict[Modality, float]
    """By modality of the query."""
    queries: dict[Modality, int]
    """How many measured it."""
    file: str = ""


def build(vectors: np.ndarray, advance: Advance | None = None) -> Any:
    """A graph of `vectors` (rows, dim); built by several threads, two may differ."""
    faiss = import_faiss()
    hnsw = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction = CONSTRUCTION
    graph = faiss.IndexIDMap(hnsw)
    rows = np.arange(len(vectors))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        graph.add_with_ids(vectors[block], block)
        if advance:
            advance(start + len(block), len(rows))
    return graph


def renumber(graph: Any, moved: np.ndarray, vectors: np.ndarray) -> bool:
    """Bring a graph up to date: row i became row `moved[i]` of `vectors`, -1 where it is gone.

    False where too many rows are gone: build it anew.
    """
    faiss = import_faiss()
    ids = faiss.vector_to_array(graph.id_map)
    ids = np.where(ids >= 0, moved[ids], -1)
    if (ids < 0).sum() > STALE * len(ids):
        return False
    faiss.copy_array_to_vector(ids, graph.id_map)
    fresh = np.setdiff1d(np.arange(len(vectors)), ids)
    if len(fresh):
        graph.add_with_ids(vectors[fresh], fresh)
    return True


def measure(
    graph: Any, modality: Modality, vectors: Mapping[Modality, np.ndarray], seed: int = 0
) -> GraphFacts:
    """Choose the breadth of `modality`'s graph and measure its recall@`K`.

    Queries are rows of `vectors`, of both modalities; a row is no answer to itself. The breadth is
    the smallest that reaches `TARGET` for the queries of either modality on one half of them; the
    recall stated is that of the other half: the share of the answers that are as near as the exact
    search's last one.
    """
    random = np.random.default_rng(seed)
    nearest = Nearest(vectors[modality], graph)
    drawn: dict[Modality, list[np.ndarray]] = {}
    for of, rows in vectors.items():
        size = min(2 * _SAMPLE, len(rows))
        if size > 1:
            drawn[of] = np.array_split(random.choice(len(rows), size=size, replace=False), 2)

    def recall(of: Modality, half: int) -> float:
        rows, own = drawn[of][half], of == modality
        queries = vectors[of][rows]
        least = _cosines(nearest, queries, rows if own else None, exactly=True)[:, -1:]
        return float((_cosines(nearest, queries, rows if own else None) >= least).mean())

    for breadth in BREADTHS:
        nearest.breadth = breadth
        if min(recall(of, 0) for of in drawn) >= TARGET:
            break
    return GraphFacts(
        breadth=nearest.breadth,
        k=K,
        recall={of: recall(of, 1) for of in drawn},
        queries={of: len(halves[1]) for of, halves in drawn.items()},
    )


def _cosines(
    nearest: Nearest, queries: np.ndarray, own: np.ndarray | None, exactly: bool = False
) -> np.ndarray:
    """Of the best `K` answers but for the queries themselves, which are the rows `own`."""
    if own is None:
        return nearest.search(queries, K, exactly).cosines
    hits = nearest.search(queries, K + 1, exactly)
    itself = hits.rows == own[:, None]
    itself[:, -1] |= ~itself.any(axis=1)  # else the last one goes
    return hits.cosines[~itself].reshape(len(queries), -1)
