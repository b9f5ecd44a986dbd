"""Approximate search: its recall is measured, and what it answers is as exact as it can be."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.search import Index, exact, graphs, store, update
from anymodal.search.entries import Entry, in_order, skipped_table
from anymodal.search.graph_files import make_graphs
from helpers.searching import classifier, write_picture

pytest.importorskip("faiss")
DIM = 24
ROWS = 2500


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def entries(seed=0, noise=0.6, rows=ROWS, gap=0.5, name=""):
    """Sounds and pictures around 50 common centres, some way apart from each other."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(50, DIM))
    made = []
    for modality, shift in (("audio", gap), ("image", -gap)):
        x = centres[random.integers(0, 50, rows)] + noise * random.normal(size=(rows, DIM)) + shift
        for number, vector in enumerate(unit(x)):
            path = f"{number:05d}{name}.{modality}"
            made.append(Entry(path, 1, 1, f"{path} {seed}", modality, 0.0, {modality: vector}))
    return made


def publish(place, some, before=None, progress=None):
    """An index of entries with graphs, as `update` makes it."""
    place.mkdir(exist_ok=True)
    facts = {"root": "/", "identity": {"dim": DIM}, "anymodal": "0", "ann": True}
    contents = store.write(place, facts, in_order(some), skipped_table([]))
    told = make_graphs(contents, before, progress)
    contents = store.publish(contents, {**contents.header, "graphs": told})
    store.tidy(place, contents.header)
    return contents


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    place = tmp_path_factory.mktemp("built") / "index"
    return publish(place, entries())


@pytest.fixture(scope="module")
def index(built):
    return Index.open(built.folder)


def recall(index, rows, modality, k=10):
    """Share of the k true nearest, but for the query itself, by a full matrix of cosines."""
    own = np.flatnonzero(index.rows.modality == modality)
    cosines = index.vectors[rows].astype(np.float64) @ index.vectors[own].astype(np.float64).T
    cosines[rows[:, None] == own[None]] = -2
    truth = own[np.argsort(-cosines, axis=1, kind="stable")[:, :k]]
    found = index.search(index.vectors[rows], k + 1, modality).rows
    shares = []
    for row, true, got in zip(rows, truth, found, strict=True):
        shares.append(len(set(true) & set([one for one in got if one != row][:k])) / k)
    return float(np.mean(shares))


@pytest.mark.parametrize("modality", ["audio", "image"])
def test_recall_is_told_as_it_is(index, modality):
    told = index.graphs[modality]
    assert told["k"] == 10 and set(told["recall"]) == {"audio", "image"}
    random = np.random.default_rng(9)
    for of in ("audio", "image"):
        own = np.flatnonzero(index.rows.modality == of)
        actual = recall(index, random.choice(own, 800, replace=False), modality)
        assert actual == pytest.approx(told["recall"][of], abs=0.02)
        assert actual >= graphs.TARGET - 0.02


def test_a_search_that_is_too_narrow_says_so(built, monkeypatch):
    graph = graphs.build(built.vectors, 0, ROWS)
    monkeypatch.setattr(graphs, "_BREADTHS", (1, 2))
    monkeypatch.setattr(graphs, "LINKS", 4)
    narrow = graphs.build(built.vectors, 0, ROWS)
    told = graphs.measure(narrow, built.vectors, built.counts)
    assert told["breadth"] == 2 and min(told["recall"].values()) < graphs.TARGET
    monkeypatch.undo()
    assert min(graphs.measure(graph, built.vectors, built.counts)["recall"].values()) > 0.94


def test_answers_are_ranked_by_their_exact_cosines(index):
    queries = np.random.default_rng(3).normal(size=(40, DIM))
    for modality in ("audio", "image", None):
        found = index.search(queries, 20, modality)
        truth = index.search(queries, 20, modality, exactly=True)
        assert found.rows.shape == truth.rows.shape == (40, 20)
        exactly = exact.unit(queries, DIM)[:, None] * index.vectors[found.rows]
        np.testing.assert_allclose(found.cosines, exactly.sum(axis=2), atol=2e-7)
        assert (np.diff(found.cosines, axis=1) <= 0).all()
        assert all(len(set(row)) == 20 for row in found.rows.tolist())
        assert (found.cosines <= truth.cosines).all()
        if modality:
            assert set(index.rows.modality[found.rows.ravel()]) == {modality}


def test_a_large_part_of_the_collection_is_searched_exactly(index):
    queries = np.random.default_rng(3).normal(size=(5, DIM))
    for k in (ROWS // 2, 3 * ROWS):
        found, truth = index.search(queries, k), index.search(queries, k, exactly=True)
        np.testing.assert_array_equal(found.rows, truth.rows)
    with pytest.raises(AnymodalError, match="k must be"):
        index.search(queries, 0)
    with pytest.raises(AnymodalError, match="no modality"):
        index.search(queries, 3, "smell")


def test_changes_are_searched_beside_the_graph_until_they_are_many(tmp_path, built):
    before = publish(tmp_path / "index", entries())
    graph_files = {path.name: path.read_bytes() for path in before.folder.glob("*.faiss")}
    random = np.random.default_rng(1)
    kept = [entry for entry in entries() if random.random() > 0.03]
    fresh = entries(seed=7, rows=60, name=" new")
    now = publish(before.folder, kept + fresh, before)
    assert {path.name: path.read_bytes() for path in now.folder.glob("*.faiss")} == graph_files
    index = Index.open(now.folder)
    new = np.flatnonzero(index.rows.path.str.contains("new"))
    own = index.search(index.vectors[new], 1).rows[:, 0]
    np.testing.assert_array_equal(own, new)  # every one of them is found
    for modality in ("audio", "image"):
        some = random.choice(len(index), 500, replace=False)
        assert recall(index, some, modality) >= graphs.TARGET - 0.03
    # one step further, over nodes that are gone
    rest = [entry for number, entry in enumerate(kept) if number % 50] + fresh[:90]
    third = publish(now.folder, rest, now)
    assert {path.name for path in third.folder.glob("*.faiss")} == set(graph_files)
    assert recall(Index.open(third.folder), np.arange(0, len(rest), 9), "image") >= 0.92
    last = publish(third.folder, entries(seed=7, rows=ROWS // 2), third)
    assert not {path.name for path in last.folder.glob("*.faiss")} & set(graph_files)
    assert recall(Index.open(last.folder), np.arange(0, ROWS, 9), "audio") >= 0.92


def test_equal_rows_count_as_equally_good_answers(tmp_path):
    some = entries(rows=graphs.LEAST)
    same = [
        replace(entry, vectors=dict.fromkeys(entry.vectors, some[0].vectors["audio"]))
        for entry in some
    ]
    contents = publish(tmp_path / "index", same)
    assert min(contents.header["graphs"]["audio"]["recall"].values()) == 1.0
    found = Index.open(contents.folder).search(some[0].vectors["audio"][None], 12)
    assert found.cosines.tolist() == [[1.0] * 12] and len(set(found.rows[0].tolist())) == 12


def test_graphs_of_another_index_are_refused(tmp_path, built):
    contents = publish(tmp_path / "index", entries())
    told = contents.header["graphs"]["audio"]
    np.save(contents.folder / told["nodes"], np.arange(3))
    index = Index.open(contents.folder)
    with pytest.raises(AnymodalError, match="graph .* of other rows; build it anew"):
        index.search(np.ones((1, DIM)), 3)
    (contents.folder / told["file"]).write_bytes(b"torn")
    with pytest.raises(AnymodalError, match="no readable graph"):
        index.search(np.ones((1, DIM)), 3)
    assert index.search(np.ones((1, DIM)), 3, exactly=True).rows.shape == (1, 3)


class TestUpdate:
    """When `update` makes graphs, and what it says."""

    @pytest.fixture
    def media(self, tmp_path):
        for number in range(60):
            write_picture(tmp_path / f"media/{number}.bmp", number)
        return tmp_path / "media"

    @pytest.fixture
    def place(self, tmp_path, monkeypatch):
        monkeypatch.setattr(graphs, "LEAST", 50)
        return tmp_path / "index"

    def test_a_graph_comes_when_asked_for_or_when_large_and_stays(self, media, place):
        model = classifier()
        assert not update(media, place, model).graphs
        steps = []

        class Bar:
            def __init__(self, title):
                steps.append(title)

            def __enter__(self):
                return lambda done, total: steps.append((done, total))

            def __exit__(self, *_):
                pass

        report = update(media, place, model, ann=True, progress=Bar)
        assert set(report.graphs) == {"image"} and report.embedded == 0
        assert steps[-2:] == ["graph of image", (60, 60)]
        assert report.graphs["image"]["recall"] == {"image": pytest.approx(1, abs=0.05)}
        write_picture(media / "new.bmp", 999)
        graph = update(media, place, model).graphs["image"]
        assert graph["file"] == report.graphs["image"]["file"]
        hits = Index.open(place).find(model, media / "new.bmp", 3)
        assert hits[0].path == "new.bmp" and len(hits) == 3
        assert not update(media, place, model, ann=False).graphs
        assert not list(place.glob("*.faiss")) and not list(place.glob("nodes-*"))
        assert not update(media, place, model, ann_from=60).graphs  # it was turned off
        assert update(media, place.parent / "other", model, ann_from=60).graphs
        assert not update(media, place.parent / "third", model, ann_from=62).graphs

    def test_too_few_rows_for_a_graph(self, media, place, monkeypatch):
        monkeypatch.setattr(graphs, "LEAST", 61)
        report = update(media, place, classifier(), ann=True)
        assert not report.graphs and "no modality has 61 rows" in report.note

    def test_without_faiss_search_is_exact_and_says_so(self, media, place, monkeypatch):
        model = classifier()
        update(media, place, model, ann=True)
        monkeypatch.setattr(graphs, "available", lambda: False)
        index = Index.open(place)
        assert index.graphs and not index.approximate
        assert index.find(model, media / "7.bmp", 2)[0].path == "7.bmp"
        with pytest.raises(AnymodalError, match=r'pip install "anymodal\[search\]"'):
            update(media, place, model, ann=True)
        report = update(media, place.parent / "other", model, ann_from=10)
        assert not report.graphs and "60 rows are searched exactly" in report.note


@pytest.mark.parametrize("order", [("torch", "faiss"), ("faiss", "torch")])
def test_faiss_and_torch_share_a_process(order):
    script = f"""
import {order[0]}, {order[1]}
import numpy as np, torch
from anymodal.search import graphs
torch.set_num_threads(2)
x = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
x /= np.linalg.norm(x, axis=1, keepdims=True)
a = torch.rand(300, 300)
before = faiss.omp_get_max_threads()
for _ in range(3):
    b = a @ a
    graph = graphs.build(x, 0, 3000)
    assert (graph.search(x, x[:50], 1, 64).rows[:, 0] == np.arange(50)).mean() > 0.9
    assert torch.equal(b, a @ a) and torch.get_num_threads() == 2
    assert faiss.omp_get_max_threads() == before
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
