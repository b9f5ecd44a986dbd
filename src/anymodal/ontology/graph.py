"""The AudioSet ontology: which class lies under which, and how far apart two classes are.

Data (ontology.json) from https://github.com/audioset/ontology by Google, CC BY-SA 4.0: 632 classes
named by their mid (machine id, such as `/m/0342h`), 670 edges from parent to child. 38 classes have
several parents, so the taxonomy is a directed acyclic graph and not a tree.

Distance    edges of the shortest path between two classes, walked either way. The longest is 21
            ("Thunder" to "Field recording"), the constant of the paper (section 3.3). Other
            readings of the taxonomy (a virtual root, first parents only) do not give 21.
Relevance   21 − distance, from 0 to 21. Between two clips the largest over all pairs of their
            labels, after `TOP_LABELS`, which nearly every clip of music carries, are removed
            (paper, section 3.3; "Objects that Sound", ECCV 2018, appendix A.2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np

from anymodal.core.errors import AnymodalError

TOP_LABELS = ("/m/04rlf", "/m/04szw", "/m/07k1x", "/m/015lz1")
"""Music, Musical instrument, Tools, Singing: do not count for relevance."""

MAX_DISTANCE = 21
"""The longest distance between two classes, in edges, and the highest relevance."""


@dataclass(frozen=True)
class Node:
    """One class of the taxonomy."""

    mid: str
    name: str
    children: tuple[str, ...]
    restrictions: tuple[str, ...]
    """`abstract`: only holds other classes together; `blacklist`: hidden from the raters."""


class Ontology:
    """A taxonomy of audio classes. Every method raises `AnymodalError` for an unknown mid."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.mid: node for node in nodes}
        self._rows = {mid: row for row, mid in enumerate(self._nodes)}
        self._mids = {node.name: mid for mid, node in self._nodes.items()}
        parents: dict[str, list[str]] = {mid: [] for mid in self._nodes}
        for node in self._nodes.values():
            for child in node.children:
                self.node(child)
                parents[child].append(node.mid)
        self._parents = {mid: tuple(of_mid) for mid, of_mid in parents.items()}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[str]:
        """All mids, in the order of the published file."""
        return iter(self._nodes)

    def __contains__(self, mid: object) -> bool:
        return mid in self._nodes

    def node(self, mid: str) -> Node:
        """Return the class of a mid."""
        try:
            return self._nodes[mid]
        except (KeyError, TypeError):
            raise AnymodalError(
                f"{mid!r} is no class of the AudioSet ontology; labels are mids such as /m/0342h"
            ) from None

    def name(self, mid: str) -> str:
        """Display name of a class."""
        return self.node(mid).name

    def mid(self, name: str) -> str:
        """Return the mid of a display name, spelt as AudioSet spells it."""
        try:
            return self._mids[name]
        except KeyError:
            raise AnymodalError(f"no class of the AudioSet ontology is named {name!r}") from None

    def children(self, mid: str) -> tuple[str, ...]:
        """The classes directly under a class."""
        return self.node(mid).children

    def parents(self, mid: str) -> tuple[str, ...]:
        """The classes directly over a class; none for a top category."""
        return self._parents[self.node(mid).mid]

    def descendants(self, mid: str, include_self: bool = True) -> frozenset[str]:
        """All classes under a class, by any parent, and the class itself if wanted."""
        reached = {self.node(mid).mid}
        pending = [mid]
        while pending:
            new = set(self._nodes[pending.pop()].children) - reached
            reached |= new
            pending += new
        return frozenset(reached if include_self else reached - {mid})

    def rows(self, mids: Iterable[str]) -> np.ndarray:
        """Positions of `mids` in `distance_matrix`, intp (mids,)."""
        return np.array([self._rows[self.node(mid).mid] for mid in mids], dtype=np.intp)

    @cached_property
    def distance_matrix(self) -> np.ndarray:
        """Distances between all classes in edges, read-only uint8 (classes, classes)."""
        # scipy.sparse is slow to import and most commands need no distances
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import shortest_path

        edges = [(mid, child) for mid, node in self._nodes.items() for child in node.children]
        ends = (self.rows(mid for mid, _ in edges), self.rows(child for _, child in edges))
        graph = csr_matrix((np.ones(len(edges)), ends), shape=(len(self), len(self)))
        matrix = shortest_path(graph, directed=False, unweighted=True)
        if np.isinf(matrix).any():
            raise AnymodalError("the taxonomy falls into parts that no path joins")
        matrix = matrix.astype(np.uint8)
        matrix.setflags(write=False)
        return matrix

    def distance(self, a: str, b: str) -> int:
        """Edges of the shortest path between two classes."""
        return int(self.distances([a], [b])[0, 0])

    def distances(self, mids_a: Iterable[str], mids_b: Iterable[str]) -> np.ndarray:
        """Distances of every class of `mids_a` to every class of `mids_b`, int64 (a, b), edges."""
        return self.distance_matrix[np.ix_(self.rows(mids_a), self.rows(mids_b))].astype(np.int64)


@cache
def ontology() -> Ontology:
    """The AudioSet ontology."""
    file = resources.files("anymodal.ontology") / "ontology.json"
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    return Ontology(
        Node(mid, name, tuple(children), tuple(restrictions))
        for mid, name, children, restrictions in nodes
    )


def relevance(labels_a: Sequence[str], labels_b: Sequence[str]) -> int:
    """Relevance of two clips to each other, 0 to 21, from the mids of each.

    0 where either has only top labels: what such a clip shows is not known.
    """
    a, b = graded_labels(labels_a), graded_labels(labels_b)
    if not a or not b:
        return 0
    return MAX_DISTANCE - int(ontology().distances(a, b).min())


def graded_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that count for relevance: no top label, each once, sorted."""
    kept = set(labels).difference(TOP_LABELS)
    return tuple(sorted(ontology().node(mid).mid for mid in kept))
