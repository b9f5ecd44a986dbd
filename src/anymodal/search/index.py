"""An index that is open for searching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anymodal.classifier.joint import By
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.evaluation.retrieval import unit_rows
from anymodal.media.segmentation import Item, Limits
from anymodal.search import store
from anymodal.search.graphs import GraphFacts
from anymodal.search.identity import identity_of, refuse_other
from anymodal.search.nearest import Hits, Nearest, import_faiss, sort_hits
from anymodal.search.query import query_vector

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier


@dataclass(frozen=True)
class Hit:
    """One answer."""

    rank: int
    """From 1."""
    cosine: float
    path: str
    """Relative to `Index.root`."""
    modality: Modality
    """Which of the file's vectors is near: a video with audio has one of each."""
    kind: str
    """`audio`, `image` or `video`."""
    seconds: float
    """Length; 0 for an image."""


class Index:
    """A folder's media in the joint space, made by `anymodal.search.update`.

    Open it with `Index.open`. It stays as it was when it was opened.
    """

    def __init__(self, folder: Path, contents: store.Contents) -> None:
        self._folder = folder
        self._contents = contents
        self._nearest = {m: Nearest(vectors) for m, vectors in contents.vectors.items()}
        for modality, facts in self.graphs.items():
            graph = store.read_graph(folder, facts)
            self._nearest[modality] = Nearest(contents.vectors[modality], graph, facts.breadth)
        self._accepted: ModalityAgnosticClassifier | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Open the index in `folder`.

        Raises `AnymodalError` where there is no index, a damaged one or one of another format, and
        where FAISS is not installed.
        """
        import_faiss()
        folder = Path(folder)
        contents = store.read(folder)
        try:
            return cls(folder, contents)
        except AnymodalError:  # it may have been replaced meanwhile
            contents = store.read(folder)
        return cls(folder, contents)

    @property
    def root(self) -> Path:
        """The indexed folder, as it was then."""
        return Path(self._contents.header.root)

    @property
    def identity(self) -> dict[str, Any]:
        """What its vectors were made by."""
        return self._contents.header.identity

    @property
    def graphs(self) -> Mapping[Modality, GraphFacts]:
        """What is known of the approximate search, a modality; empty: search is exact."""
        return self._contents.header.graphs

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 (rows, dim), unit length; audio first, then images, each by path."""
        return np.concatenate([*self._contents.vectors.values()])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Beside the vectors: path, modality, kind, seconds, size, mtime_ns, sha256."""
        rows = pd.concat([self._contents.rows(m).assign(modality=m) for m in MODALITIES])
        columns = ["path", "modality", "kind", "seconds", "size", "mtime_ns", "sha256"]
        return rows[columns].reset_index(drop=True)

    @property
    def skipped(self) -> pd.DataFrame:
        """Files without a vector, with the reason in the column `error`."""
        table = self._contents.table
        columns = ["path", "size", "mtime_ns", "sha256", "error"]
        return table.filter(table["error"].is_valid()).select(columns).to_pandas()

    def __len__(self) -> int:
        return sum(len(vectors) for vectors in self._contents.vectors.values())

    def search(
        self,
        vectors: np.ndarray,
        k: int = 10,
        modality: Modality | None = None,
        exactly: bool = False,
    ) -> Hits:
        """The k rows nearest to each of `vectors` (queries, dim) by cosine, best first.

        Fewer than k where there are no more. Cosines are rounded to six decimals; of equal ones the
        earlier row comes first. With `modality`, only its rows. Exact, unless the index has a graph
        of the rows; `exactly` leaves it unused. Raises `AnymodalError` for k below 1, an unknown
        modality, and queries of another shape or that are not finite.
        """
        if k < 1:
            raise AnymodalError(f"k must be 1 or more, not {k}")
        if modality not in (None, *MODALITIES):
            raise AnymodalError(f"no modality {modality!r}; give {' or '.join(MODALITIES)}")
        queries = unit_rows(vectors, "queries").astype(np.float32)
        dim = self.identity["dim"]
        if queries.shape[1] != dim:
            raise AnymodalError(f"queries must be of shape (queries, {dim}), not {queries.shape}")
        rows, cosines, first = [], [], 0
        for each, nearest in self._nearest.items():
            if modality in (None, each):
                hits = nearest.search(queries, k, exactly)
                rows.append(hits.rows + first)
                cosines.append(hits.cosines)
            first += len(nearest.vectors)
        hits = sort_hits(np.concatenate(cosines, axis=1), np.concatenate(rows, axis=1))
        return Hits(hits.rows[:, :k], hits.cosines[:, :k])

    def check(self, classifier: ModalityAgnosticClassifier) -> None:
        """Raise `AnymodalError` unless the index was made by this classifier."""
        if self._accepted is not classifier:
            limits = Limits(**self.identity["limits"])
            refuse_other(self._folder, identity_of(classifier, limits), self.identity)
            self._accepted = classifier

    def find(
        self,
        classifier: ModalityAgnosticClassifier,
        item: Item,
        k: int = 10,
        modality: Modality | None = None,
        by: By = "both",
        exactly: bool = False,
    ) -> list[Hit]:
        """What is nearest to an audio file, an image or a video: see `search`, `query_vector`."""
        self.check(classifier)
        vector = query_vector(classifier, item, by, Limits(**self.identity["limits"]))
        hits = self.search(vector[None], k, modality, exactly)
        rows = self.rows.iloc[hits.rows[0]][["path", "modality", "kind", "seconds"]]
        answers = zip(hits.cosines[0], rows.itertuples(index=False, name=None), strict=True)
        return [Hit(rank, float(cosine), *row) for rank, (cosine, row) in enumerate(answers, 1)]
