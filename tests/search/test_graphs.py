"""Approximate search: its recall is measured, and a graph follows what changes."""

import subprocess
import sys

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.search import Index, graphs, update
from anymodal.search.nearest import Nearest
from helpers.searching import classifier, write_image

DIM = 24
ROWS = 1500


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def clustered(seed=0, rows=ROWS, gap=0.5):
    """Audio and images around 50 common centres, some way apart from each other."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(50, DIM))
    return {
        modality: unit(
            centres[random.integers(0, 50, rows)] + 0.6 * random.normal(size=(rows, DIM)) + shift
        )
        for modality, shift in (("audio", gap), ("image", -gap))
    }


@pytest.fixture(scope="module")
def vectors():
    return clustered()


@pytest.fixture(scope="module")
def built(vectors):
    return graphs.build(vectors["image"])


def recall(nearest, queries, k=10):
    """Share of the k true nearest, by a full matrix of cosines."""
    truth = np.argsort(-(queries @ nearest.vectors.T), axis=1, kind="stable")[:, :k]
    rows = nearest.search(queries, k).rows
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(truth, rows, strict=True)])


def test_recall_is_stated_as_it_is(vectors, built):
    facts = graphs.measure(built, "image", vectors)
    assert facts.k == 10 and facts.queries == {"audio": 500, "image": 500}
    nearest = Nearest(vectors["image"], built, facts.breadth)
    for modality, queries in clustered(seed=9).items():
        measured = recall(nearest, queries)
        assert measured == pytest.approx(facts.recall[modality], abs=0.03)
        assert measured >= graphs.TARGET - 0.03


def test_a_search_that_is_too_narrow_says_so(vectors, monkeypatch):
    monkeypatch.setattr(graphs, "BREADTHS", (1, 2))
    monkeypatch.setattr(graphs, "LINKS", 4)
    facts = graphs.measure(graphs.build(vectors["image"]), "image", vectors)
    assert facts.breadth == 2 and min(facts.recall.values()) < graphs.TARGET


def test_answers_have_their_exact_cosines_best_first(vectors, built):
    queries = clustered(seed=3, rows=40)["audio"]
    nearest = Nearest(vectors["image"], built, 64)
    hits, truth = nearest.search(queries, 20), nearest.search(queries, 20, exactly=True)
    products = (queries[:, None] * vectors["image"][hits.rows]).sum(axis=2)
    np.testing.assert_allclose(hits.cosines, products, atol=2e-6)
    assert (np.diff(hits.cosines, axis=1) <= 0).all() and (hits.cosines <= truth.cosines).all()
    assert all(len(set(row)) == 20 for row in hits.rows.tolist())
    # a large part of the collection is searched exactly
    many = nearest.search(queries, ROWS // 2), nearest.search(queries, ROWS // 2, exactly=True)
    np.testing.assert_array_equal(many[0].rows, many[1].rows)


def test_equal_rows_count_as_equally_good_answers():
    same = np.tile(clustered(rows=1)["audio"], (graphs.LEAST, 1))
    graph = graphs.build(same)
    assert graphs.measure(graph, "audio", {"audio": same}).recall == {"audio": 1.0}
    hits = Nearest(same, graph, 16).search(same[:1], 12)
    assert hits.cosines.tolist() == [[1.0] * 12] and len(set(hits.rows[0].tolist())) == 12


def test_a_graph_follows_what_changes_until_much_is_gone(vectors):
    random = np.random.default_rng(1)
    rows, graph = vectors["image"], graphs.build(vectors["image"])
    for step in range(3):  # over rows that are gone already, too
        kept = random.random(len(rows)) > 0.02
        moved = np.where(kept, np.cumsum(kept) - 1, -1)
        fresh = clustered(seed=7 + step, rows=60)["image"]
        # the new rows come first
        rows = np.concatenate([fresh, rows[kept]])
        moved[kept] += len(fresh)
        assert graphs.renumber(graph, moved, rows)
        nearest = Nearest(rows, graph, 64)
        np.testing.assert_array_equal(nearest.search(fresh, 1).rows[:, 0], np.arange(60))
        assert recall(nearest, clustered(seed=5, rows=300)["image"]) >= graphs.TARGET
    gone = np.where(np.arange(len(rows)) % 9, np.arange(len(rows)), -1)
    assert not graphs.renumber(graph, gone, rows)


class TestUpdate:
    """When `update` makes graphs, and what it reports."""

    @pytest.fixture
    def media(self, tmp_path):
        for number in range(60):
            write_image(tmp_path / f"media/{number}.bmp", number)
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
        assert report.graphs["image"].recall == {"image": pytest.approx(1, abs=0.05)}
        assert update(media, place, model).graphs == report.graphs
        write_image(media / "new.bmp", 999)
        assert update(media, place, model).graphs["image"].file != report.graphs["image"].file
        index = Index.open(place)
        assert index.graphs and index.find(model, media / "new.bmp", 3)[0].path == "new.bmp"
        assert len(list(place.glob("*.faiss"))) == 1
        assert not update(media, place, model, ann=False).graphs
        assert not list(place.glob("*.faiss"))
        assert not update(media, place, model, ann_from=60).graphs  # it was turned off
        assert update(media, place.parent / "other", model, ann_from=60).graphs
        assert not update(media, place.parent / "third", model, ann_from=62).graphs

    def test_too_few_rows_for_a_graph(self, media, place, monkeypatch):
        monkeypatch.setattr(graphs, "LEAST", 61)
        report = update(media, place, classifier(), ann=True)
        assert not report.graphs and "no modality has 61 rows" in report.note

    def test_a_damaged_graph_is_refused(self, media, place):
        update(media, place, classifier(), ann=True)
        (place / "image-1.faiss").write_bytes(b"torn")
        with pytest.raises(AnymodalError, match=r"no readable image-1.faiss; build it anew"):
            Index.open(place)


@pytest.mark.slow
@pytest.mark.parametrize("order", [("torch", "faiss"), ("faiss", "torch")])
def test_faiss_and_torch_share_a_process(order):
    script = f"""
import {order[0]}, {order[1]}
import numpy as np, torch
from anymodal.search.nearest import Nearest
torch.set_num_threads(2)
x = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
x /= np.linalg.norm(x, axis=1, keepdims=True)
a = torch.rand(300, 300)
before = faiss.omp_get_max_threads()
for _ in range(3):
    b = a @ a
    assert (Nearest(x).search(x[:50], 1).rows[:, 0] == np.arange(50)).all()
    assert torch.equal(b, a @ a) and torch.get_num_threads() == 2
    assert faiss.omp_get_max_threads() == before
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
