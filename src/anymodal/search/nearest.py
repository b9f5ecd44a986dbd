"""Nearest rows by cosine with FAISS: `IndexFlatIP`, or an HNSW graph where there is one.

Rows and queries are float32 of length 1. Cosines are rounded to six decimals, so that rows of equal
vectors come in their own order whatever the linear algebra library.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from anymodal.core.errors import AnymodalError

_PER_THREAD = 32
"""Queries that a thread of FAISS is used for."""


class Hits(NamedTuple):
    """The best rows of every query, best first."""

    rows: np.ndarray
    """int64 (queries, min(k, rows there are))."""
    cosines: np.ndarray
    """float32, the same shape."""


def import_faiss() -> Any:
    """The module `faiss`. Raises `AnymodalError` where it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise AnymodalError("searching needs FAISS: pip install 'anymodal[search]'") from error


class Nearest:
    """The rows of one modality."""

    def __init__(self, vectors: np.ndarray, graph: Any = None, breadth: int = 0) -> None:
        self.vectors = vectors
        """float32 (rows, dim)."""
        self.graph = graph
        """faiss.IndexIDMap over an HNSW graph; a removed row has the id -1. None: no graph."""
        self.breadth = breadth
        """efSearch: how many candidates the graph keeps."""

    def search(self, queries: np.ndarray, k: int, exactly: bool = False) -> Hits:
        """The k rows nearest to each of `queries`, float32 (n, dim) of length 1."""
        k = min(k, len(self.vectors))
        if not k or not len(queries):
            return Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), "f4"))
        # a graph would visit most of its nodes for a large part of the rows
        exactly = exactly or self.graph is None or k > len(self.vectors) // 10
        faiss = import_faiss()
        threads = faiss.omp_get_max_threads()
        # few queries on many threads wait for those that other work, as PyTorch's, delays
        faiss.omp_set_num_threads(min(threads, 1 + len(queries) // _PER_THREAD))
        try:
            cosines, rows = (self._flat.search if exactly else self._proposed)(queries, k)
            lacking = rows[:, -1] < 0
            if lacking.any():
                cosines[lacking], rows[lacking] = self._flat.search(queries[lacking], k)
        finally:
            faiss.omp_set_num_threads(threads)
        return sort_hits(cosines, rows)

    def _proposed(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        faiss = import_faiss()
        present = faiss.IDSelectorRange(0, len(self.vectors))
        settings = faiss.SearchParametersHNSW(efSearch=max(self.breadth, 2 * k), sel=present)
        return self.graph.search(queries, k, params=settings)

    @cached_property
    def _flat(self) -> Any:
        flat = import_faiss().IndexFlatIP(self.vectors.shape[1])
        flat.add(self.vectors)
        return flat


def sort_hits(cosines: np.ndarray, rows: np.ndarray) -> Hits:
    """Hits by cosine, rounded to six decimals, then by row."""
    cosines = np.clip(np.round(cosines.astype(np.float64), 6), -1, 1).astype(np.float32)
    order = np.lexsort((rows, -cosines), axis=1)
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1))
