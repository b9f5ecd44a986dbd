"""The AudioSet ontology: which class lies under which, and how far apart two classes are.

Facts (data/ontology.json) from https://github.com/audioset/ontology by Google, CC BY-SA 4.0:
632 classes named by their mid (machine id, such as `/m/0342h`), 670 edges from parent to child.
38 classes have several parents ("Choir" lies under "Singing" and under "Musical instrument"), so
the taxonomy is a directed acyclic graph and not a tree.

Distance
--------
`distance(a, b)` counts the edges of the shortest path between two classes, an edge being walked
either way. The classes of several parents join all seven top categories into one connected graph
whose longest distance is 21 ("Thunder" to "Field recording"): the constant of the paper
(section 3.3). "Objects that Sound" (Arandjelovic and Zisserman, ECCV 2018, appendix A.2), which
the paper follows, has 20: the longest distance once the blacklisted classes are set aside, and
its example, acoustic guitar to drums = 5, holds here. No other reading of the taxonomy gives
either number: a virtual root over the top categories shortens the longest distance to 11; the
tree of first parents has 12 with such a root and falls apart (9 within a category) without.

Relevance
---------
`relevance` of one class to another is 21 − distance, from 0 to 21. Between two clips it is the
largest relevance over all pairs of their labels: labels are true of a whole video, of which the
clip shows one second, so that one label in common makes a good answer, while a mean or a minimum
would punish it for whatever else the videos hold ("Objects that Sound", appendix A.2). Before
that, the four labels of `TOP_LABELS`, which nearly every clip of music carries, are removed
(paper, section 3.3).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np

from anymodal.errors import AnymodalError

TOP_LABELS = ("/m/04rlf", "/m/04szw", "/m/07k1x", "/m/015lz1")
"""Music, Musical instrument, Tools, Singing: left out of relevance (paper, section 3.3)."""

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
    """A taxonomy of sound classes. Every method raises `AnymodalError` for an unknown mid."""

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
        """All facts about a class."""
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
        """The class of a display name, spelt as AudioSet spells it."""
        try:
            return self._mids[name]
        except (KeyError, TypeError):
            near = difflib.get_close_matches(str(name), self._mids, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise AnymodalError(
                f"no class of the AudioSet ontology is named {name!r}{hint}"
            ) from None

    def children(self, mid: str) -> tuple[str, ...]:
        """The classes directly under a class."""
        return self.node(mid).children

    def parents(self, mid: str) -> tuple[str, ...]:
        """The classes directly over a class; none for a top category."""
        return self._parents[self.node(mid).mid]

    def descendants(self, mid: str, include_self: bool = True) -> frozenset[str]:
        """All classes under a class, by whichever parent, and the class itself if wanted."""
        found = {self.node(mid).mid}
        pending = [mid]
        while pending:
            for child in self._nodes[pending.pop()].children:
                if child not in found:
                    found.add(child)
                    pending.append(child)
        return frozenset(found if include_self else found - {mid})

    def rows(self, mids: Iterable[str]) -> np.ndarray:
        """Positions of `mids` in `distance_matrix`, intp (mids,)."""
        return np.array([self._rows[self.node(mid).mid] for mid in mids], dtype=np.intp)

    @cached_property
    def distance_matrix(self) -> np.ndarray:
        """Distances between all classes in edges, read-only uint8 (classes, classes).

        Worked out at first use: a breadth-first search from every class.
        """
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
    file = resources.files("anymodal") / "data" / "ontology.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    return Ontology(
        Node(mid, name, tuple(children), tuple(restrictions))
        for mid, name, children, restrictions in facts["nodes"]
    )


def relevance(labels_a: Sequence[str], labels_b: Sequence[str]) -> int:
    """Relevance of two clips to each other, 0 to 21 (see the module's text).

    `labels_a`, `labels_b`: the clips' mids. 0 where nothing is left of either after the top
    labels are removed: of such a clip it is not known what it shows.
    """
    a, b = graded_labels(labels_a), graded_labels(labels_b)
    if not a or not b:
        return 0
    return MAX_DISTANCE - int(ontology().distances(a, b).min())


def graded_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that count for relevance: no top label, each once, sorted."""
    if isinstance(labels, str):
        raise AnymodalError(f"labels of a clip are a list of mids, not the text {labels!r}")
    try:
        kept = set(labels).difference(TOP_LABELS)
    except TypeError:
        raise AnymodalError(f"labels of a clip are a list of mids, not {labels!r}") from None
    known = ontology()
    return tuple(sorted(known.node(mid).mid for mid in kept))
