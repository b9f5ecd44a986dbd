"""The taxonomy's facts, distances against a plain breadth-first search, relevance."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from anymodal.errors import AnymodalError
from anymodal.ontology import (
    MAX_DISTANCE,
    TOP_LABELS,
    Node,
    Ontology,
    graded_labels,
    ontology,
    relevance,
)

REPOSITORY = Path(__file__).parent.parent
PUBLISHED = REPOSITORY.parent / "shared" / "reference" / "audioset_ontology.json"
EVALUATED = PUBLISHED.with_name("audioset_class_labels_indices.csv")
BUILD = REPOSITORY / "tools" / "build_ontology.py"


def mids(*names: str) -> list[str]:
    return [ontology().mid(name) for name in names]


def tiny(*families: tuple[str, str], restrictions: tuple[str, ...] = ()) -> Ontology:
    """An ontology of one-letter classes from (parent, children) pairs."""
    children = dict(families)
    letters = sorted(set("".join(parent + below for parent, below in families)))
    return Ontology(
        Node(letter, f"name of {letter}", tuple(children.get(letter, "")), restrictions)
        for letter in letters
    )


def plain_distances(start: str) -> dict[str, int]:
    """Breadth-first search, one class at a time."""
    known = ontology()
    found = {start: 0}
    pending = deque([start])
    while pending:
        here = pending.popleft()
        for there in (*known.children(here), *known.parents(here)):
            if there not in found:
                found[there] = found[here] + 1
                pending.append(there)
    return found


class TestFacts:
    def test_size(self) -> None:
        known = ontology()
        assert len(known) == len(list(known)) == 632
        assert sum(len(known.children(mid)) for mid in known) == 670
        assert "/m/0342h" in known
        assert "/m/nothing" not in known

    def test_read_once(self) -> None:
        assert ontology() is ontology()

    def test_names_and_mids_are_inverse(self) -> None:
        assert ontology().name("/m/0342h") == "Guitar"
        assert ontology().mid("Violin, fiddle") == "/m/07y_7"
        assert all(ontology().mid(ontology().name(mid)) == mid for mid in ontology())

    def test_top_categories(self) -> None:
        tops = {ontology().name(mid) for mid in ontology() if not ontology().parents(mid)}
        assert tops == {
            "Animal",
            "Channel, environment and background",
            "Human sounds",
            "Music",
            "Natural sounds",
            "Sounds of things",
            "Source-ambiguous sounds",
        }

    def test_top_labels(self) -> None:
        names = [ontology().name(mid) for mid in TOP_LABELS]
        assert names == ["Music", "Musical instrument", "Tools", "Singing"]

    def test_children_and_parents_are_inverse(self) -> None:
        known = ontology()
        edges = {(mid, child) for mid in known for child in known.children(mid)}
        assert edges == {(parent, mid) for mid in known for parent in known.parents(mid)}

    def test_classes_of_several_parents(self) -> None:
        known = ontology()
        assert [known.name(mid) for mid in known.parents(known.mid("Choir"))] == [
            "Singing",
            "Musical instrument",
        ]
        assert sum(len(known.parents(mid)) > 1 for mid in known) == 38
        assert max(len(known.parents(mid)) for mid in known) == 4

    def test_restrictions(self) -> None:
        assert ontology().node("/m/09l8g").restrictions == ("abstract",)
        assert ontology().node("/m/0342h").restrictions == ()

    def test_facts_are_those_published(self) -> None:
        if not PUBLISHED.is_file():
            pytest.skip(f"no published ontology at {PUBLISHED}")
        published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
        assert [ontology().node(mid) for mid in ontology()] == [
            Node(node["id"], node["name"], tuple(node["child_ids"]), tuple(node["restrictions"]))
            for node in published
        ]

    def test_all_evaluated_classes_are_known(self) -> None:
        if not EVALUATED.is_file():
            pytest.skip(f"no list of evaluated classes at {EVALUATED}")
        with EVALUATED.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 527
        assert all(ontology().name(row["mid"]) == row["display_name"] for row in rows)


class TestDescendants:
    def test_guitar(self) -> None:
        assert {ontology().name(mid) for mid in ontology().descendants("/m/0342h")} == {
            "Guitar",
            "Electric guitar",
            "Bass guitar",
            "Acoustic guitar",
            "Steel guitar, slide guitar",
            "Tapping (guitar technique)",
            "Strum",
        }

    def test_self_can_be_left_out(self) -> None:
        known = ontology()
        assert known.descendants("/m/0342h", include_self=False) == known.descendants(
            "/m/0342h"
        ) - {"/m/0342h"}

    def test_leaf(self) -> None:
        leaf = ontology().mid("Ukulele")
        assert ontology().descendants(leaf) == {leaf}
        assert ontology().descendants(leaf, include_self=False) == frozenset()

    def test_instruments_singing_and_tools_are_110_classes(self) -> None:
        # the number that "Objects that Sound", appendix A.1, lists
        found = [
            ontology().descendants(mid) for mid in mids("Musical instrument", "Singing", "Tools")
        ]
        assert [len(part) for part in found] == [92, 10, 9]
        assert len(frozenset().union(*found)) == 110

    def test_diamond_is_visited_once(self) -> None:
        diamond = tiny(("a", "bc"), ("b", "d"), ("c", "d"))
        assert diamond.descendants("a") == {"a", "b", "c", "d"}


class TestDistance:
    @pytest.mark.parametrize(
        ("a", "b", "edges"),
        [
            ("Guitar", "Guitar", 0),
            ("Guitar", "Electric guitar", 1),
            # the examples of "Objects that Sound", appendix A.2
            ("Acoustic guitar", "Acoustic guitar", 0),
            ("Acoustic guitar", "Electric guitar", 2),
            ("Acoustic guitar", "Drum", 5),
            # through Choir, which lies under both
            ("Singing", "Musical instrument", 2),
            ("Thunder", "Field recording", 21),
        ],
    )
    def test_known(self, a: str, b: str, edges: int) -> None:
        assert ontology().distance(*mids(a, b)) == edges
        assert ontology().distance(*mids(b, a)) == edges

    def test_longest_is_21(self) -> None:
        assert ontology().distance_matrix.max() == MAX_DISTANCE == 21

    def test_longest_without_blacklisted_is_20(self) -> None:
        kept = [mid for mid in ontology() if "blacklist" not in ontology().node(mid).restrictions]
        assert ontology().distances(kept, kept).max() == 20

    def test_a_metric(self) -> None:
        matrix = ontology().distance_matrix.astype(int)
        assert (matrix == matrix.T).all()
        assert ((matrix == 0) == np.eye(len(matrix), dtype=bool)).all()
        rows = np.random.default_rng(0).integers(len(matrix), size=(5000, 3))
        a, b, c = rows.T
        assert (matrix[a, c] <= matrix[a, b] + matrix[b, c]).all()

    @pytest.mark.parametrize("start", ["Guitar", "Thunder", "Choir", "Human sounds"])
    def test_against_plain_search(self, start: str) -> None:
        everything = list(ontology())
        plain = plain_distances(ontology().mid(start))
        found = ontology().distances([ontology().mid(start)], everything)[0]
        assert found.tolist() == [plain[mid] for mid in everything]

    def test_many_at_once(self) -> None:
        a, b = mids("Guitar", "Piano", "Guitar"), mids("Electric guitar", "Piano")
        found = ontology().distances(a, b)
        assert found.dtype == np.int64
        assert found.tolist() == [[ontology().distance(x, y) for y in b] for x in a]

    def test_none(self) -> None:
        assert ontology().distances([], mids("Guitar")).shape == (0, 1)
        assert ontology().distances([], []).shape == (0, 0)

    def test_matrix_is_read_only(self) -> None:
        with pytest.raises(ValueError, match="read-only"):
            ontology().distance_matrix[0, 0] = 1

    def test_shortest_of_several_paths(self) -> None:
        assert tiny(("a", "bz"), ("b", "c"), ("c", "z")).distance("c", "z") == 1
        assert tiny(("a", "bc"), ("b", "d"), ("c", "e")).distance("d", "e") == 4

    def test_parts_that_no_path_joins(self) -> None:
        with pytest.raises(AnymodalError, match="parts"):
            tiny(("a", "b"), ("c", "d")).distance("a", "b")


class TestUnknown:
    @pytest.mark.parametrize("mid", ["/m/nothing", "Guitar", "", None, 3, ["/m/0342h"]])
    def test_mid(self, mid: str) -> None:
        known = ontology()
        for call in (
            lambda: known.name(mid),
            lambda: known.children(mid),
            lambda: known.parents(mid),
            lambda: known.descendants(mid),
            lambda: known.distance(mid, "/m/0342h"),
            lambda: known.distances(["/m/0342h"], [mid]),
        ):
            with pytest.raises(AnymodalError, match="no class of the AudioSet ontology") as error:
                call()
            assert repr(mid) in str(error.value)

    def test_name_suggests_near_ones(self) -> None:
        with pytest.raises(AnymodalError, match="'Guitarr'; did you mean 'Guitar'"):
            ontology().mid("Guitarr")
        with pytest.raises(AnymodalError, match=r"named 3$"):
            ontology().mid(3)  # type: ignore[arg-type]

    def test_child(self) -> None:
        with pytest.raises(AnymodalError, match="'b'"):
            Ontology([Node("a", "name", ("b",), ())])


class TestRelevance:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [
            (["Guitar"], ["Guitar"], 21),
            (["Guitar"], ["Electric guitar"], 20),
            (["Acoustic guitar"], ["Drum"], 16),
            (["Thunder"], ["Field recording"], 0),
            # the nearest pair of labels counts
            (["Drum", "Guitar"], ["Guitar", "Speech"], 21),
            (["Guitar", "Guitar"], ["Electric guitar"], 20),
            # top labels are removed first
            (["Music", "Guitar"], ["Music", "Drum"], 17),
            (["Music", "Musical instrument"], ["Music"], 0),
            (["Music"], ["Guitar"], 0),
            ([], ["Guitar"], 0),
            ([], [], 0),
        ],
    )
    def test_known(self, a: list[str], b: list[str], expected: int) -> None:
        assert relevance(mids(*a), mids(*b)) == expected
        assert relevance(mids(*b), mids(*a)) == expected

    def test_graded_labels(self) -> None:
        assert graded_labels(["/m/0342h", "/m/04rlf", "/m/02sgy", "/m/0342h"]) == (
            "/m/02sgy",
            "/m/0342h",
        )
        assert graded_labels(np.array(["/m/0342h"])) == ("/m/0342h",)
        assert graded_labels(()) == ()

    def test_a_text_is_no_list(self) -> None:
        with pytest.raises(AnymodalError, match="list of mids, not the text '/m/0342h'"):
            relevance("/m/0342h", ["/m/0342h"])

    @pytest.mark.parametrize("labels", [None, 3, float("nan"), [["/m/0342h"]]])
    def test_no_list_of_mids(self, labels: list[str]) -> None:
        with pytest.raises(AnymodalError, match="list of mids"):
            relevance(["/m/0342h"], labels)

    def test_unknown_label(self) -> None:
        with pytest.raises(AnymodalError, match="'guitar' is no class"):
            relevance(["/m/0342h"], ["guitar"])


class TestBuild:
    """The script that makes the data file."""

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(BUILD), *map(str, arguments)], capture_output=True, text=True
        )

    def publish(self, path: Path, *nodes: dict[str, object]) -> Path:
        whole = {"id": "a", "name": "A", "description": "long", "child_ids": [], "restrictions": []}
        path.write_text(json.dumps([{**whole, **node} for node in nodes]), encoding="utf-8")
        return path

    def test_remakes_the_data_file(self, tmp_path: Path) -> None:
        if not PUBLISHED.is_file():
            pytest.skip(f"no published ontology at {PUBLISHED}")
        result = self.run(PUBLISHED, tmp_path / "made.json")
        assert result.returncode == 0, result.stderr
        shipped = REPOSITORY / "src" / "anymodal" / "data" / "ontology.json"
        assert (tmp_path / "made.json").read_bytes() == shipped.read_bytes()

    def test_keeps_facts_and_credit(self, tmp_path: Path) -> None:
        source = self.publish(
            tmp_path / "in.json",
            {"child_ids": ["b"], "restrictions": ["abstract"]},
            {"id": "b", "name": 'B "é"'},
        )
        assert self.run(source, tmp_path / "out.json").returncode == 0
        made = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert made["nodes"] == [["a", "A", ["b"], ["abstract"]], ["b", 'B "é"', [], []]]
        assert "CC BY-SA 4.0" in made["license"]

    @pytest.mark.parametrize(
        ("nodes", "message"),
        [
            ([], "holds no class"),
            ([{}, {"name": "B"}], "id 'a' stands for more than one class"),
            ([{}, {"id": "b"}], "name 'A' stands for more than one class"),
            ([{"child_ids": ["c"]}], "the child c, which is no class"),
            ([{"child_ids": None}], "not a list of AudioSet classes"),
        ],
    )
    def test_refuses(self, tmp_path: Path, nodes: list[dict[str, object]], message: str) -> None:
        source = self.publish(tmp_path / "in.json", *nodes)
        result = self.run(source, tmp_path / "out.json")
        assert result.returncode == 1
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "out.json").exists()

    def test_refuses_what_is_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "in.json").write_text("{", encoding="utf-8")
        assert self.run(tmp_path / "in.json", tmp_path / "out.json").returncode == 1
        assert self.run(tmp_path / "absent.json", tmp_path / "out.json").returncode == 1
        assert self.run().returncode == 2
