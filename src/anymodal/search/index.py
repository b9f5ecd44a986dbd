"""An index that is open for searching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.media.segmentation import Item, Limits
from anymodal.search import exact, graphs, store
from anymodal.search.exact import Hits
from anymodal.search.graph_files import first_row, read_graph
from anymodal.search.identity import difference, identity_of
from anymodal.search.query import By, query_vector

if TYPE_CHECKING:
    import pandas as pd

    from anymodal.search.graphs import Graph
    from anymodal.search.identity import Embedder
    from anymodal.search.store import Contents


@dataclass(frozen=True)
class Hit:
    """One answer."""

    rank: int
    """From 1."""
    cosine: float
    path: str
    """Relative to `Index.root`."""
    modality: Modality
    """What of the file was found: a film with sound has a row of each."""
    kind: str
    """`audio`, `image` or `video`."""
    seconds: float
    """Length; 0 for a still picture."""


class Index:
    """A folder's media in the joint space, made by `anymodal.search.update`.

    Open it with `Index.open`. It stays as it was when it was opened.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._graphs: dict[Modality, Graph] = {}

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Open the index in `folder`; vectors stay on disk until they are searched.

        Raises `AnymodalError` where there is no index, a damaged one, or one of another format.
        """
        return cls(store.read(Path(folder)))

    @property
    def root(self) -> Path:
        """The indexed folder, as it was then."""
        return Path(self._contents.header["root"])

    @property
    def identity(self) -> dict[str, Any]:
        """What its vectors were made by."""
        return self._contents.header["identity"]

    @property
    def vectors(self) -> np.ndarray:
        """float32 (rows, dim), unit length; sounds first, then pictures, each by path."""
        return self._contents.vectors

    @property
    def rows(self) -> pd.DataFrame:
        """Beside the vectors: path, modality, kind, seconds, size, mtime_ns, sha256."""
        return self._contents.rows.to_pandas()

    @property
    def skipped(self) -> pd.DataFrame:
        """Files without a vector, with the reason in the column `error`."""
        return self._contents.skipped.to_pandas()

    @property
    def graphs(self) -> Mapping[str, Any]:
        """What is known of the approximate search, a modality: breadth, k, recall, queries."""
        return self._contents.header["graphs"]

    @property
    def approximate(self) -> bool:
        """Whether `search` may use a graph."""
        return bool(self.graphs) and graphs.available()

    def __len__(self) -> int:
        return len(self._contents.vectors)

    def search(
        self,
        vectors: np.ndarray,
        k: int = 10,
        modality: Modality | None = None,
        exactly: bool = False,
    ) -> Hits:
        """The k rows nearest to each of `vectors` (queries, dim) by cosine, best first.

        Fewer than k where there are no more. Of rows with equal cosines the earlier comes first.
        With `modality`, only its rows. Exact, unless the index has a graph of the rows and FAISS is
        there; `exactly` leaves it unused. Raises `AnymodalError` for k below 1, an unknown
        modality, and queries of another shape or that are not finite.
        """
        if modality is not None and modality not in MODALITIES:
            raise AnymodalError(f"no modality {modality!r}; give {' or '.join(MODALITIES)}")
        matrix, counts = self.vectors, self._contents.counts
        if exactly or k < 1 or not self.approximate:
            if modality is None:
                return exact.search(matrix, vectors, k)
            first = first_row(counts, modality)
            return exact.search(matrix[first : first + counts[modality]], vectors, k, first)
        if modality is None:
            parts = [self.search(vectors, k, m) for m in MODALITIES if counts[m]]
            return _merged(parts, k)
        if modality not in self.graphs:
            return self.search(vectors, k, modality, exactly=True)
        if modality not in self._graphs:
            self._graphs[modality] = read_graph(self._contents, modality)
        breadth = int(self.graphs[modality]["breadth"])
        return self._graphs[modality].search(matrix, vectors, k, breadth)

    def check(self, classifier: Embedder) -> None:
        """Raise `AnymodalError` unless the index was made by this classifier."""
        limits = Limits(**self.identity["limits"])
        refuse_other(self._contents, identity_of(classifier, limits))

    def find(
        self,
        classifier: Embedder,
        item: Item,
        k: int = 10,
        modality: Modality | None = None,
        by: By = "both",
        exactly: bool = False,
    ) -> list[Hit]:
        """What is nearest to a sound, a picture or a film: see `search` and `query_vector`."""
        self.check(classifier)
        vector = query_vector(classifier, item, by, Limits(**self.identity["limits"]))
        hits = self.search(vector[None], k, modality, exactly)
        found = self._contents.rows.take(hits.rows[0]).to_pylist()
        names = ("path", "modality", "kind", "seconds")
        return [
            Hit(place, float(cosine), **{name: row[name] for name in names})
            for place, (row, cosine) in enumerate(zip(found, hits.cosines[0], strict=True), 1)
        ]


def refuse_other(contents: Contents, identity: Mapping[str, Any]) -> None:
    """Raise `AnymodalError` unless the index is of the classifier with this identity."""
    differs = difference(identity, contents.header["identity"])
    if differs:
        raise AnymodalError(
            f"the index in {contents.folder} was made by another classifier ({differs}); give that "
            "one with --model, or build the index anew: `anymodal index FOLDER --rebuild`"
        )


def _merged(parts: list[Hits], k: int) -> Hits:
    rows = np.concatenate([part.rows for part in parts], axis=1)
    cosines = np.concatenate([part.cosines for part in parts], axis=1)
    order = np.lexsort((rows, -cosines), axis=1)[:, :k]
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1))
