"""Approximate search for large collections: FAISS's HNSW graph, one a modality.

A graph a modality, because the query is mostly of the other one: a filter behind one common graph
would throw away most of what it finds. The graph proposes rows, whose cosines are then worked out
as in the exact search; where it proposes too few, the exact search answers.

Files that were added since the graph was built are searched exactly beside it, and those that were
removed are passed over. Where both together exceed `STALE` of a graph it is built anew.

Recall is measured on the collection itself (`measure`): its own rows are the queries, of either
modality, as a graph that answers well within a modality may answer badly across.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.search import exact

LEAST = 1_000
"""Rows of a modality below which no graph is built: exact search is as fast."""
STALE = 0.1
"""Share of changes above which a graph is built anew."""
K = 10
"""Answers a query whose recall is measured."""
TARGET = 0.95
"""Recall that the search's breadth is chosen for."""
LINKS = 32
"""Links a node (HNSW's M)."""
CONSTRUCTION = 128
"""Breadth of the search that finds them (efConstruction)."""
_BREADTHS = (16, 32, 64, 128, 256, 512, 1024)
"""Breadths (efSearch) to choose from."""
_SAMPLE = 500
"""Queries a modality that the breadth is chosen by, and as many others that measure its recall."""
_BLOCK = 8192

Advance = Callable[[int, int], None]


def available() -> bool:
    """Whether FAISS is installed."""
    return importlib.util.find_spec("faiss") is not None


def require() -> None:
    """Raise `AnymodalError` where FAISS is not installed."""
    if not available():
        raise AnymodalError(
            'an approximate search needs FAISS: pip install "anymodal[search]", or leave out --ann'
        )


@dataclass
class Graph:
    """A modality's graph over the rows of an index."""

    index: Any
    """faiss.IndexHNSWFlat."""
    nodes: np.ndarray
    """int64 (nodes,): the row of each node in the index's matrix, -1 where it is gone."""
    first: int
    """First row of the modality."""
    count: int
    """Its rows."""
    _fresh_rows: np.ndarray | None = field(default=None, init=False, repr=False)

    @cached_property
    def fresh(self) -> np.ndarray:
        """Rows that are not in the graph, int64."""
        there = np.zeros(self.count, dtype=bool)
        there[self.nodes[self.nodes >= 0] - self.first] = True
        return np.flatnonzero(~there) + self.first

    @property
    def gone(self) -> int:
        """Nodes whose rows are gone."""
        return int((self.nodes < 0).sum())

    @property
    def stale(self) -> bool:
        """Whether too much has changed since it was built."""
        return self.gone + len(self.fresh) > STALE * len(self.nodes)

    def search(self, matrix: np.ndarray, vectors: np.ndarray, k: int, breadth: int) -> exact.Hits:
        """Like `exact.search` on the modality's rows of the whole `matrix`, approximately."""
        own = slice(self.first, self.first + self.count)
        queries = exact.unit(vectors, matrix.shape[1])
        if not len(queries) or k >= self.count // 10:
            # nothing, or so much that a graph would have to visit most of its nodes
            return exact.search(matrix[own], vectors, k, self.first)
        owner, rows = self._proposed(queries, k, max(breadth, 2 * k))
        if len(self.fresh):
            if self._fresh_rows is None:
                self._fresh_rows = np.ascontiguousarray(matrix[self.fresh])
            beside = exact.search(self._fresh_rows, queries, k)
            depth = beside.rows.shape[1]
            owner = np.concatenate([owner, np.repeat(np.arange(len(queries)), depth)])
            rows = np.concatenate([rows, self.fresh[beside.rows.ravel()]])
        best, keys = exact.rank(matrix, queries, owner, rows, k)
        lacking = np.flatnonzero(best[:, -1] < 0)
        cosines = (keys / exact.STEPS).astype(np.float32)
        if lacking.size:
            best[lacking], cosines[lacking] = exact.search(
                matrix[own], queries[lacking], k, self.first
            )
        return exact.Hits(best, cosines)

    def _proposed(self, queries: np.ndarray, k: int, breadth: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of a query and a row."""
        faiss = _faiss()
        settings = faiss.SearchParametersHNSW(efSearch=breadth)
        if self.gone:
            bits = np.packbits(self.nodes >= 0, bitorder="little")
            settings = faiss.SearchParametersHNSW(
                efSearch=breadth, sel=faiss.IDSelectorBitmap(bits)
            )
        with _threads(len(queries)):
            _, found = self.index.search(queries.astype(np.float32), k, params=settings)
        owner, depth = np.nonzero(found >= 0)
        rows = self.nodes[found[owner, depth]]
        return owner[rows >= 0], rows[rows >= 0]


def build(matrix: np.ndarray, first: int, count: int, advance: Advance | None = None) -> Graph:
    """The graph of rows [first, first + count) of `matrix`.

    Built by several threads (`OMP_NUM_THREADS`), two graphs of the same rows may differ.
    """
    faiss = _faiss()
    index = faiss.IndexHNSWFlat(matrix.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = CONSTRUCTION
    for start in range(first, first + count, _BLOCK):
        block = np.ascontiguousarray(matrix[start : min(start + _BLOCK, first + count)])
        with _threads(len(block)):
            index.add(block)
        if advance:
            advance(int(index.ntotal), count)
    return Graph(index, np.arange(first, first + count, dtype=np.int64), first, count)


def measure(
    graph: Graph, matrix: np.ndarray, counts: dict[Modality, int], seed: int = 0
) -> dict[str, Any]:
    """Choose a graph's breadth and measure its recall@`K`, as JSON values.

    Queries are the collection's own rows, of both modalities; a row is no answer to itself. The
    breadth is the smallest that reaches `TARGET` for the queries of either modality on one half of
    them, and the recall told is that of the other half: the share of the answers that are as near
    as the exact search's last one.
    """
    random = np.random.default_rng(seed)
    halves: list[dict[Modality, np.ndarray]] = [{}, {}]
    first = 0
    for modality in MODALITIES:
        size = min(2 * _SAMPLE, counts[modality])
        drawn = first + random.choice(counts[modality], size=size, replace=False)
        for half, part in zip(halves, (drawn[: size // 2], drawn[size // 2 :]), strict=True):
            if len(part):
                half[modality] = part
        first += counts[modality]
    truth = {m: _answers(graph, matrix, rows, None) for m, rows in halves[0].items()}
    breadth = _BREADTHS[-1]
    for tried in _BREADTHS:
        recalls = (
            _recall(truth[m], _answers(graph, matrix, rows, tried)) for m, rows in halves[0].items()
        )
        if min(recalls) >= TARGET:
            breadth = tried
            break
    recall = {
        m: _recall(_answers(graph, matrix, rows, None), _answers(graph, matrix, rows, breadth))
        for m, rows in halves[1].items()
    }
    queries = {m: len(rows) for m, rows in halves[1].items()}
    return {"breadth": breadth, "k": K, "recall": recall, "queries": queries}


def _answers(graph: Graph, matrix: np.ndarray, rows: np.ndarray, breadth: int | None) -> np.ndarray:
    """Cosines of the best `K` rows but for the query itself, float32 (queries, K)."""
    if breadth is None:
        own = matrix[graph.first : graph.first + graph.count]
        hits = exact.search(own, matrix[rows], K + 1, graph.first)
    else:
        hits = graph.search(matrix, matrix[rows], K + 1, breadth)
    itself = hits.rows == rows[:, None]
    itself[:, -1] |= ~itself.any(axis=1)  # else the last one goes
    return hits.cosines[~itself].reshape(len(rows), -1)


def _recall(truth: np.ndarray, found: np.ndarray) -> float:
    return float((found >= truth[:, -1:]).mean())


def _faiss() -> Any:
    import faiss

    return faiss


@contextmanager
def _threads(most: int) -> Iterator[None]:
    """FAISS's threads: no more than there is work for, nor than the environment allows.

    FAISS and PyTorch each bring an OpenMP of their own, whose waiting threads take the processors
    from the other's; what is set here concerns FAISS's alone.
    """
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    most = min(most, int(allowed) if allowed.isdigit() else os.cpu_count() or 1)
    faiss.omp_set_num_threads(max(1, most))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
