"""The taxonomy's facts, distances against a plain breadth-first search, relevance."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections import deque

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.ontology.graph import (
    MAX_DISTANCE,
    TOP_LABELS,
    Node,
    Ontology,
    graded_labels,
    ontology,
    relevance,
)
from helpers.paths import ROOT, shared


@pytest.fixture
def published():
    """The ontology as it was published."""
    return shared("reference/audioset_ontology.json")[0]


def mids(*names: str) -> list[str]:
    return [ontology().mid(name) for name in names]


def tiny(*families: tuple[str, str]) -> Ontology:
    """An ontology of one-letter classes from (parent, children) pairs."""
    children = dict(families)
    letters = sorted(set("".join(parent + below for parent, below in families)))
    return Ontology(
        Node(letter, f"name of {letter}", tuple(children.get(letter, "")), ()) for letter in letters
    )


def plain_distances(start: str) -> dict[str, int]:
    """Breadth-first search, one class at a time."""
    known = ontology()
    distances = {start: 0}
    pending = deque([start])
    while pending:
        here = pending.popleft()
        for neighbour in (*known.children(here), *known.parents(here)):
            if neighbour not in distances:
                distances[neighbour] = distances[here] + 1
                pending.append(neighbour)
    return distances


# ---------------------------------------------------------------------------------------- facts


def test_size_and_inverses():
    known = ontology()
    assert known is ontology()
    assert len(known) == len(list(known)) == 632
    assert sum(len(known.children(mid)) for mid in known) == 670
    assert "/m/0342h" in known and "/m/nothing" not in known
    assert known.name("/m/0342h") == "Guitar" and known.mid("Violin, fiddle") == "/m/07y_7"
    assert all(known.mid(known.name(mid)) == mid for mid in known)
    labels = [known.name(mid) for mid in TOP_LABELS]
    assert labels == ["Music", "Musical instrument", "Tools", "Singing"]
    edges = {(mid, child) for mid in known for child in known.children(mid)}
    assert edges == {(parent, mid) for mid in known for parent in known.parents(mid)}


def test_parents_and_restrictions():
    known = ontology()
    parents = [known.name(mid) for mid in known.parents(known.mid("Choir"))]
    assert parents == ["Singing", "Musical instrument"]
    counts = [len(known.parents(mid)) for mid in known]
    assert sum(count > 1 for count in counts) == 38 and max(counts) == 4
    assert sum(count == 0 for count in counts) == 7
    assert ontology().node("/m/09l8g").restrictions == ("abstract",)
    assert ontology().node("/m/0342h").restrictions == ()


def test_facts_are_those_published(published):
    nodes = json.loads(published.read_text(encoding="utf-8"))
    assert [ontology().node(mid) for mid in ontology()] == [
        Node(node["id"], node["name"], tuple(node["child_ids"]), tuple(node["restrictions"]))
        for node in nodes
    ]
    (evaluated,) = shared("reference/audioset_class_labels_indices.csv")
    with evaluated.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 527
    assert all(ontology().name(row["mid"]) == row["display_name"] for row in rows)


def test_descendants():
    known = ontology()
    guitars = known.descendants("/m/0342h")
    assert {known.name(mid) for mid in guitars} == {
        "Guitar",
        "Electric guitar",
        "Bass guitar",
        "Acoustic guitar",
        "Steel guitar, slide guitar",
        "Tapping (guitar technique)",
        "Strum",
    }
    assert known.descendants("/m/0342h", include_self=False) == guitars - {"/m/0342h"}
    leaf = known.mid("Ukulele")
    assert known.descendants(leaf) == {leaf}
    assert known.descendants(leaf, include_self=False) == frozenset()
    diamond = tiny(("a", "bc"), ("b", "d"), ("c", "d"))
    assert diamond.descendants("a") == {"a", "b", "c", "d"}


def test_instruments_singing_and_tools_are_110_classes():
    # the number that "Objects that Sound", appendix A.1, lists
    parts = [ontology().descendants(mid) for mid in mids("Musical instrument", "Singing", "Tools")]
    assert [len(part) for part in parts] == [92, 10, 9]
    assert len(frozenset().union(*parts)) == 110


# ------------------------------------------------------------------------------------- distances


@pytest.mark.parametrize(
    ("a", "b", "edges"),
    [
        ("Guitar", "Guitar", 0),
        ("Guitar", "Electric guitar", 1),
        # the examples of "Objects that Sound", appendix A.2
        ("Acoustic guitar", "Electric guitar", 2),
        ("Acoustic guitar", "Drum", 5),
        # through Choir, which lies under both
        ("Singing", "Musical instrument", 2),
        ("Thunder", "Field recording", 21),
    ],
)
def test_known_distances(a, b, edges):
    assert ontology().distance(*mids(a, b)) == ontology().distance(*mids(b, a)) == edges


def test_the_longest_distance_is_21_and_20_without_blacklisted_classes():
    known = ontology()
    assert known.distance_matrix.max() == MAX_DISTANCE == 21
    kept = [mid for mid in known if "blacklist" not in known.node(mid).restrictions]
    assert known.distances(kept, kept).max() == 20


def test_a_metric():
    matrix = ontology().distance_matrix.astype(int)
    assert (matrix == matrix.T).all()
    assert ((matrix == 0) == np.eye(len(matrix), dtype=bool)).all()
    a, b, c = np.random.default_rng(0).integers(len(matrix), size=(3, 5000))
    assert (matrix[a, c] <= matrix[a, b] + matrix[b, c]).all()
    with pytest.raises(ValueError, match="read-only"):
        ontology().distance_matrix[0, 0] = 1


@pytest.mark.parametrize("start", ["Guitar", "Thunder", "Choir", "Human sounds"])
def test_against_plain_search(start):
    everything = list(ontology())
    plain = plain_distances(ontology().mid(start))
    fast = ontology().distances(mids(start), everything)[0]
    assert fast.tolist() == [plain[mid] for mid in everything]


def test_many_at_once_and_none():
    a, b = mids("Guitar", "Piano", "Guitar"), mids("Electric guitar", "Piano")
    distances = ontology().distances(a, b)
    assert distances.dtype == np.int64
    assert distances.tolist() == [[ontology().distance(x, y) for y in b] for x in a]
    assert ontology().distances([], b).shape == (0, 2)
    assert ontology().distances([], []).shape == (0, 0)


def test_several_paths_and_separate_parts():
    assert tiny(("a", "bz"), ("b", "c"), ("c", "z")).distance("c", "z") == 1
    assert tiny(("a", "bc"), ("b", "d"), ("c", "e")).distance("d", "e") == 4
    with pytest.raises(AnymodalError, match="parts"):
        tiny(("a", "b"), ("c", "d")).distance("a", "b")


# --------------------------------------------------------------------------------- unknown classes


@pytest.mark.parametrize("mid", ["/m/nothing", "Guitar", "", None, 3, ["/m/0342h"]])
def test_unknown_mids(mid):
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


def test_unknown_names_and_children():
    with pytest.raises(AnymodalError, match="'Guitarr'"):
        ontology().mid("Guitarr")
    with pytest.raises(AnymodalError, match="'b'"):
        Ontology([Node("a", "name", ("b",), ())])


# ------------------------------------------------------------------------------------- relevance


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
def test_known_relevance(a, b, expected):
    assert relevance(mids(*a), mids(*b)) == relevance(mids(*b), mids(*a)) == expected


def test_graded_labels():
    labels = ["/m/0342h", "/m/04rlf", "/m/02sgy", "/m/0342h"]
    assert graded_labels(labels) == ("/m/02sgy", "/m/0342h")
    assert graded_labels(np.array(["/m/0342h"])) == ("/m/0342h",)
    assert graded_labels(()) == ()
    with pytest.raises(AnymodalError, match="'guitar' is no class"):
        relevance(["/m/0342h"], ["guitar"])


# ------------------------------------------------------------------ tools/build_ontology.py


@pytest.fixture(scope="module")
def build():
    """The main function of the script that makes the data file."""
    path = ROOT / "tools/build_ontology.py"
    spec = importlib.util.spec_from_file_location("build_ontology", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


def publish(path, *nodes):
    whole = {"id": "a", "name": "A", "description": "long", "child_ids": [], "restrictions": []}
    path.write_text(json.dumps([{**whole, **node} for node in nodes]), encoding="utf-8")
    return path


def test_the_data_file_is_made_from_the_published_one(build, published, tmp_path):
    assert build(published, tmp_path / "made.json") == 0
    shipped = ROOT / "src/anymodal/ontology/ontology.json"
    assert (tmp_path / "made.json").read_bytes() == shipped.read_bytes()


def test_build_keeps_facts_and_credit(build, tmp_path):
    first = {"child_ids": ["b"], "restrictions": ["abstract"]}
    source = publish(tmp_path / "in.json", first, {"id": "b", "name": 'B "é"'})
    assert build(source, tmp_path / "out.json") == 0
    made = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert made["nodes"] == [["a", "A", ["b"], ["abstract"]], ["b", 'B "é"', [], []]]
    assert "CC BY-SA 4.0" in made["license"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "holds no class"),
        ([{}, {"name": "B"}], "id 'a' stands for more than one class"),
        ([{"child_ids": ["c"]}], "the child c, which is no class"),
        ([{"child_ids": None}], "not a list of AudioSet classes"),
    ],
)
def test_build_refuses(build, tmp_path, capsys, nodes, message):
    assert build(publish(tmp_path / "in.json", *nodes), tmp_path / "out.json") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_build_refuses_what_is_no_json(build, tmp_path):
    (tmp_path / "in.json").write_text("{", encoding="utf-8")
    assert build(tmp_path / "in.json", tmp_path / "out.json") == 1
    assert build(tmp_path / "absent.json", tmp_path / "out.json") == 1
    assert build() == 2
