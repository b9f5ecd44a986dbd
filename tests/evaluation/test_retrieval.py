"""Retrieval: exact search, graded NDCG and its expectation, against plain references and peers."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from anymodal.core.errors import AnymodalError
from anymodal.evaluation import relevance as grading
from anymodal.evaluation import retrieval
from anymodal.evaluation.relevance import Grading
from anymodal.evaluation.retrieval import (
    Directions,
    cross_modal_retrieval,
    expected_ndcg,
    ndcg,
    random_baseline,
    top_k,
)
from anymodal.ontology.graph import TOP_LABELS, ontology, relevance

GUITAR, ELECTRIC, DRUM, PIANO, MUSIC = map(
    ontology().mid, ("Guitar", "Electric guitar", "Drum", "Piano", "Music")
)
POOL = [
    *TOP_LABELS,
    *map(
        ontology().mid,
        ("Guitar", "Electric guitar", "Drum", "Piano", "Choir", "Hammer", "Thunder", "Speech"),
    ),
    ontology().mid("Field recording"),
]

quick = settings(max_examples=40, deadline=None)
labels_of_clip = st.lists(st.sampled_from(POOL), max_size=4)
seeds = st.integers(0, 2**32 - 1)


def random_labels(n: int, random: np.random.Generator, most: int = 4) -> list[list[str]]:
    known = list(ontology())
    return [
        [known[row] for row in random.integers(len(known), size=random.integers(0, most + 1))]
        for _ in range(n)
    ]


def plain_ndcg(ranking: list[int], query: list[str], gallery: list[list[str]], k: int) -> float:
    """NDCG@k of one query as the formula reads."""

    def discounted(order: list[list[str]]) -> float:
        total = 0.0
        for rank, labels in enumerate(order[:k], start=1):
            total += relevance(query, labels) / math.log2(rank + 1)
        return total

    ideal = discounted(sorted(gallery, key=lambda labels: relevance(query, labels), reverse=True))
    return discounted([gallery[row] for row in ranking]) / ideal if ideal else math.nan


def plain_top_k(queries: list[list[int]], targets: list[list[int]], k: int) -> list[list[int]]:
    """Order by sign and square of the cosine as fractions: exact, ties to the lower row."""

    def closeness(query: list[int], target: list[int]) -> Fraction:
        dot = sum(a * b for a, b in zip(query, target, strict=True))
        square = sum(b * b for b in target)
        return Fraction(dot * abs(dot), square) if square else Fraction(0)

    return [
        sorted(range(len(targets)), key=lambda row: (-closeness(query, targets[row]), row))[:k]
        for query in queries
    ]


class TestTopK:
    def test_hand_made(self) -> None:
        targets = np.array([[0, 1], [1, 1], [1, 0], [-1, 0]], dtype=np.float32)
        found = top_k(np.array([[2, 0], [0, 0.5]], dtype=np.float32), targets, 3)
        assert found.dtype == np.int64
        assert found.tolist() == [[2, 1, 0], [0, 1, 2]]

    def test_equal_targets_in_order_of_row(self) -> None:
        random = np.random.default_rng(1)
        distinct = random.normal(size=(7, 33)).astype(np.float32)
        targets = np.tile(distinct, (40, 1))
        found = top_k(distinct, targets, 45)
        for query, answers in enumerate(found):
            assert answers[:40].tolist() == list(range(query, 280, 7))
            assert (np.diff(answers[40:]) > 0).all()

    def test_targets_of_one_direction_are_equal(self) -> None:
        # their cosines differ in the last digits of float64
        random = np.random.default_rng(9)
        direction, query = random.normal(size=(2, 100))
        targets = np.outer(random.uniform(0.1, 10, size=200), direction)
        for asked in (direction, -direction, query):
            assert top_k(asked[None], targets, 200).tolist() == [list(range(200))]

    @quick
    @given(
        st.integers(1, 4).flatmap(
            lambda d: st.tuples(
                *(
                    st.lists(st.lists(st.integers(-3, 3), min_size=d, max_size=d), min_size=1)
                    for _ in range(2)
                )
            )
        ),
        st.integers(1, 8),
        st.integers(1, 5),
    )
    def test_against_exact_fractions(
        self, sides: tuple[list[list[int]], list[list[int]]], k: int, chunk: int
    ) -> None:
        queries, targets = sides
        found = top_k(np.array(queries), np.array(targets), k, chunk)
        assert found.tolist() == plain_top_k(queries, targets, k)

    def test_scale_counts_for_nothing(self) -> None:
        random = np.random.default_rng(2)
        queries, targets = random.normal(size=(20, 16)), random.normal(size=(50, 16))
        found = top_k(queries, targets, 10)
        for scale in (1e-200, 1e-3, 1e200):
            assert (top_k(queries * scale, targets, 10) == found).all()
            assert (top_k(queries, targets * scale, 10) == found).all()

    def test_chunk_and_company_count_for_nothing(self) -> None:
        random = np.random.default_rng(3)
        queries = random.normal(size=(70, 128)).astype(np.float32)
        # few distinct targets: full of ties
        targets = random.normal(size=(9, 128)).astype(np.float32)[random.integers(9, size=333)]
        found = top_k(queries, targets, 30)
        for chunk in (1, 7, 69, 1000):
            assert (top_k(queries, targets, 30, chunk) == found).all()
        assert (np.vstack([top_k(query[None], targets, 30) for query in queries]) == found).all()

    def test_smaller_blocks_for_a_wide_gallery(self, monkeypatch: pytest.MonkeyPatch) -> None:
        random = np.random.default_rng(4)
        queries, targets = random.normal(size=(40, 8)), random.normal(size=(60, 8))
        found = top_k(queries, targets, 5)
        monkeypatch.setattr(retrieval, "_BLOCK", 100)
        assert (top_k(queries, targets, 5) == found).all()

    def test_k_beyond_the_gallery(self) -> None:
        found = top_k(np.eye(3)[:2], np.eye(3), 30)
        assert found.tolist() == [[0, 1, 2], [1, 0, 2]]

    def test_empty(self) -> None:
        assert top_k(np.empty((0, 4)), np.eye(4), 3).shape == (0, 3)
        assert top_k(np.eye(4), np.empty((0, 4)), 3).shape == (4, 0)
        assert top_k(np.empty((0, 4)), np.empty((0, 4)), 3).shape == (0, 0)

    def test_zeros_are_similar_to_nothing(self) -> None:
        targets = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        assert top_k(np.array([[1.0, 0.0]]), targets, 3).tolist() == [[2, 1, 0]]
        assert top_k(np.zeros((1, 2)), targets, 3).tolist() == [[0, 1, 2]]

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value: float) -> None:
        spoilt = np.eye(3)
        spoilt[1, 2] = value
        with pytest.raises(AnymodalError, match=r"queries hold .* first in row 1 "):
            top_k(spoilt, np.eye(3))
        with pytest.raises(AnymodalError, match=r"targets hold .* first in row 1 "):
            top_k(np.eye(3), spoilt)

    @pytest.mark.parametrize(
        ("queries", "targets", "message"),
        [
            (np.eye(3), np.eye(4), "3 dimensions and targets 4"),
            (np.ones(3), np.eye(3), "queries must be a matrix"),
            (np.eye(3), np.ones((2, 2, 3)), "targets must be a matrix"),
        ],
    )
    def test_wrong_shapes(self, queries: np.ndarray, targets: np.ndarray, message: str) -> None:
        with pytest.raises(AnymodalError, match=message):
            top_k(queries, targets)

    @pytest.mark.parametrize("value", [0, -1, 2.5, True, None])
    def test_wrong_numbers(self, value: int) -> None:
        with pytest.raises(AnymodalError, match="k must be a whole number"):
            top_k(np.eye(3), np.eye(3), value)
        with pytest.raises(AnymodalError, match="chunk must be a whole number"):
            top_k(np.eye(3), np.eye(3), 1, value)

    def test_memory_is_bounded(self) -> None:
        random = np.random.default_rng(5)
        queries = random.normal(size=(4000, 8)).astype(np.float32)
        tracemalloc.start()
        top_k(queries, queries, 5, chunk=50)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4000 * 4000 * 8 / 10


class TestNdcg:
    gallery = ([GUITAR], [ELECTRIC], [DRUM])
    """Relevance 21, 20 and 17 to a guitar."""

    @pytest.mark.parametrize(
        ("ranking", "k", "expected"),
        [
            ([0, 1, 2], 3, 1.0),
            ([0, 1], 2, 1.0),
            ([2, 0, 1], 3, 0.9556236),
            ([2, 1, 0], 3, 0.9525150),
            ([2, 0, 1], 2, 0.8997855),
            ([2, 0, 1], 1, 17 / 21),
            ([1, 2, 0], 1, 20 / 21),
        ],
    )
    def test_frozen(self, ranking: list[int], k: int, expected: float) -> None:
        found = ndcg(np.array([ranking]), [[GUITAR]], self.gallery, k)
        assert found.dtype == np.float64
        assert found == pytest.approx([expected], abs=1e-7)

    def test_perfect(self) -> None:
        random = np.random.default_rng(0)
        queries, gallery = random_labels(30, random), random_labels(80, random)
        ranking = np.array(
            [
                sorted(range(80), key=lambda row: -relevance(query, gallery[row]))
                for query in queries
            ]
        )
        found = ndcg(ranking, queries, gallery, 30)
        defined = [bool(set(query) - set(TOP_LABELS)) for query in queries]
        assert 15 < sum(defined) < 30
        assert (~np.isnan(found)).tolist() == defined
        assert found[defined] == pytest.approx(1.0, abs=1e-12)
        assert (found[defined] <= 1).all()

    def test_ideal_is_of_the_whole_gallery(self) -> None:
        # the answers are in their best order, but better ones were passed over
        found = ndcg(np.array([[2]]), [[GUITAR]], self.gallery, 1)
        assert found == pytest.approx([17 / 21])

    @pytest.mark.parametrize("k", [1, 5, 30, 100])
    def test_against_plain_loops(self, k: int) -> None:
        random = np.random.default_rng(k)
        queries, gallery = random_labels(25, random), random_labels(60, random)
        ranking = random.permuted(np.tile(np.arange(60), (25, 1)), axis=1)
        plain = [
            plain_ndcg(list(order), query, gallery, k)
            for order, query in zip(ranking, queries, strict=True)
        ]
        assert np.isnan(plain).any()
        np.testing.assert_allclose(ndcg(ranking, queries, gallery, k), plain, rtol=1e-12)

    def test_small_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        random = np.random.default_rng(6)
        queries, gallery = random_labels(25, random), random_labels(60, random)
        ranking = random.permuted(np.tile(np.arange(60), (25, 1)), axis=1)
        found = ndcg(ranking, queries, gallery, 10)
        for block in (1, 300, 2000):
            monkeypatch.setattr(grading, "_BLOCK", block)
            np.testing.assert_array_equal(ndcg(ranking, queries, gallery, 10), found)

    @quick
    @given(
        st.lists(labels_of_clip, min_size=1, max_size=6),
        st.lists(labels_of_clip, min_size=1, max_size=12),
        st.integers(1, 14),
        seeds,
    )
    def test_bounds_and_order(
        self, queries: list[list[str]], gallery: list[list[str]], k: int, seed: int
    ) -> None:
        random = np.random.default_rng(seed)
        m = len(gallery)
        ranking = random.permuted(np.tile(np.arange(m), (len(queries), 1)), axis=1)
        found = ndcg(ranking, queries, gallery, k)
        best = [max(relevance(query, labels) for labels in gallery) for query in queries]
        assert np.isnan(found).tolist() == [grade == 0 for grade in best]
        assert ((found >= 0) & (found <= 1) | np.isnan(found)).all()
        # the gallery's order does not matter
        moved = random.permutation(m)
        shuffled = [gallery[row] for row in moved]
        np.testing.assert_array_equal(ndcg(np.argsort(moved)[ranking], queries, shuffled, k), found)
        # nor do top labels, or labels said twice
        wordy = [[*labels, MUSIC, *labels] for labels in queries]
        np.testing.assert_array_equal(ndcg(ranking, wordy, gallery, k), found)

    @quick
    @given(st.lists(labels_of_clip, min_size=2, max_size=10), st.integers(1, 12), st.data())
    def test_better_answer_first_never_loses(
        self, gallery: list[list[str]], k: int, data: st.DataObject
    ) -> None:
        order = data.draw(st.permutations(range(len(gallery))))
        place = data.draw(st.integers(0, len(gallery) - 2))
        query = [GUITAR]
        swapped = list(order)
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
        before, after = ndcg(np.array([order, swapped]), [query, query], gallery, k)
        if relevance(query, gallery[order[place]]) <= relevance(query, gallery[order[place + 1]]):
            assert not after < before - 1e-12

    def test_undefined(self) -> None:
        ranking = np.array([[0, 1], [0, 1]])
        found = ndcg(ranking, [[GUITAR], [MUSIC]], [[GUITAR], [MUSIC]], 2)
        assert found[0] == 1
        assert np.isnan(found[1])
        assert np.isnan(ndcg(ranking, [[GUITAR], [DRUM]], [[MUSIC], []], 2)).all()

    def test_unlabelled_answer_gains_nothing(self) -> None:
        found = ndcg(np.array([[1, 0]]), [[GUITAR]], [[GUITAR], [MUSIC]], 2)
        assert found == pytest.approx([1 / math.log2(3)])

    def test_empty(self) -> None:
        assert ndcg(np.empty((0, 2), dtype=int), [], [[GUITAR], [DRUM]]).shape == (0,)
        assert ndcg(np.empty((0, 0), dtype=int), [], []).shape == (0,)
        assert np.isnan(ndcg(np.empty((2, 0), dtype=int), [[GUITAR], []], [])).all()

    def test_labels_of_a_table(self) -> None:
        table = pd.DataFrame({"labels": [[GUITAR], np.array([DRUM]), (PIANO,)]}, index=[9, 3, 5])
        found = ndcg(np.array([[0], [1], [2]]), table["labels"], table["labels"], 1)
        assert found.tolist() == [1, 1, 1]

    @pytest.mark.parametrize(
        ("ranking", "message"),
        [
            ([[0, 1]], "1 × 2, but 2 queries with 2 answers"),
            ([[0], [1]], "2 × 1, but 2 queries with 2 answers"),
            ([[0, 3], [0, 1]], "outside the gallery of 3"),
            ([[0, -1], [0, 1]], "outside the gallery of 3"),
            ([[0, 1], [2, 2]], "twice"),
            ([[0.0, 1.0], [2.0, 1.0]], "integer matrix"),
            ([0, 1], "integer matrix"),
        ],
    )
    def test_wrong_ranking(self, ranking: list[list[int]], message: str) -> None:
        with pytest.raises(AnymodalError, match=message):
            ndcg(np.array(ranking), [[GUITAR], [DRUM]], self.gallery, 2)

    def test_wrong_arguments(self) -> None:
        ranking = np.array([[0, 1, 2]])
        with pytest.raises(AnymodalError, match="k must be"):
            ndcg(ranking, [[GUITAR]], self.gallery, 0)
        with pytest.raises(AnymodalError, match="'guitar' is no class"):
            ndcg(ranking, [["guitar"]], self.gallery)


class TestGrading:
    def test_relevance_is_that_of_two_clips(self) -> None:
        random = np.random.default_rng(8)
        queries, gallery = random_labels(40, random), random_labels(50, random)
        found = np.full((40, 50), -1)
        graded = Grading(queries, gallery, 30)
        for clips, group, block in graded.blocks():
            found[clips] = block.relevance[group][:, graded.targets.of_clip]
        plain = [[relevance(a, b) for b in gallery] for a in queries]
        assert found.tolist() == plain


class TestExpected:
    def test_against_all_orders(self) -> None:
        queries = [[GUITAR], [DRUM, MUSIC], [PIANO], [MUSIC]]
        gallery = [[GUITAR], [ELECTRIC], [DRUM], [], [PIANO, GUITAR]]
        for k in (1, 2, 5, 9):
            orders = list(permutations(range(5)))
            scores = [ndcg(np.array([order] * 4), queries, gallery, k) for order in orders]
            np.testing.assert_allclose(
                expected_ndcg(queries, gallery, k), np.mean(scores, axis=0), rtol=1e-12
            )

    def test_empty(self) -> None:
        assert expected_ndcg([], [[GUITAR]]).shape == (0,)
        assert np.isnan(expected_ndcg([[GUITAR]], [])).all()


class TestCrossModal:
    def test_perfect_match(self) -> None:
        labels = [[mid] for mid in (GUITAR, DRUM, PIANO)]
        scores = cross_modal_retrieval(np.eye(3), np.eye(3), labels, labels, k=1)
        assert scores.directions == Directions(audio_to_image=1, image_to_audio=1)

    def test_galleries_of_different_size(self) -> None:
        audio, image = np.eye(3)[[0, 1]], np.eye(3)[[1, 0, 0]]
        audio_labels, image_labels = [[GUITAR], [DRUM]], [[ELECTRIC], [GUITAR], [DRUM]]
        scores = cross_modal_retrieval(audio, image, audio_labels, image_labels, k=2)
        # guitar finds guitar, drum; drum finds electric guitar, guitar (by row: equal cosines)
        third = math.log2(3)
        drum = relevance([DRUM], [ELECTRIC])
        assert (drum, relevance([DRUM], [GUITAR])) == (16, 17)
        expected_audio = [
            (21 + 17 / third) / (21 + 20 / third),
            (16 + 17 / third) / (21 + 17 / third),
        ]
        expected_image = [
            (16 + 20 / third) / (20 + 16 / third),
            1.0,
            (17 + 21 / third) / (21 + 17 / third),
        ]
        assert scores.audio_queries == pytest.approx(expected_audio)
        assert scores.image_queries == pytest.approx(expected_image)
        assert scores.directions.audio_to_image == pytest.approx(np.mean(expected_audio))
        assert scores.directions.image_to_audio == pytest.approx(np.mean(expected_image))

    def test_undefined_queries_are_left_out_of_the_mean(self) -> None:
        labels = [[GUITAR], [MUSIC]]
        scores = cross_modal_retrieval(np.eye(2), np.eye(2), labels, labels)
        assert scores.directions.audio_to_image == 1
        assert np.isnan(scores.audio_queries).tolist() == [False, True]

    def test_against_scikit_learn(self) -> None:
        random = np.random.default_rng(11)
        labels = [[[GUITAR], [ELECTRIC, DRUM], [PIANO], [DRUM]][row] for row in range(4)]
        audio_labels = [labels[row] for row in random.integers(4, size=30)]
        image_labels = [labels[row] for row in random.integers(4, size=50)]
        audio, image = random.normal(size=(30, 16)), random.normal(size=(50, 16))
        cosine = (audio @ image.T) / np.outer(
            np.linalg.norm(audio, axis=1), np.linalg.norm(image, axis=1)
        )
        true = np.array([[relevance(a, b) for b in image_labels] for a in audio_labels])
        scores = cross_modal_retrieval(audio, image, audio_labels, image_labels, k=10)
        assert scores.directions.audio_to_image == pytest.approx(ndcg_score(true, cosine, k=10))
        assert scores.directions.image_to_audio == pytest.approx(ndcg_score(true.T, cosine.T, k=10))

    @quick
    @given(st.integers(1, 8), st.integers(1, 12), seeds)
    def test_gallery_order_and_chunk_do_not_matter(self, n: int, m: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        audio, image = random.normal(size=(n, 6)), random.normal(size=(m, 6))
        labels = [[POOL[row]] for row in random.integers(4, len(POOL) - 1, size=n + m)]
        moved = random.permutation(m)
        before = cross_modal_retrieval(audio, image, labels[:n], labels[n:], k=5)
        after = cross_modal_retrieval(
            audio, image[moved], labels[:n], [labels[n + row] for row in moved], k=5, chunk=2
        )
        np.testing.assert_allclose(after.audio_queries, before.audio_queries, rtol=1e-12)
        np.testing.assert_allclose(after.image_queries, before.image_queries[moved], rtol=1e-12)

    def test_refusals(self) -> None:
        labels = [[GUITAR], [DRUM]]
        with pytest.raises(AnymodalError, match="2 audio embeddings have 1 lists"):
            cross_modal_retrieval(np.eye(2), np.eye(2), labels[:1], labels)
        with pytest.raises(AnymodalError, match="2 image embeddings have 3 lists"):
            cross_modal_retrieval(np.eye(2), np.eye(2), labels, [*labels, []])
        with pytest.raises(AnymodalError, match="none of 0 audio clips"):
            cross_modal_retrieval(np.empty((0, 2)), np.eye(2), [], labels)
        with pytest.raises(AnymodalError, match="none of 2 audio clips"):
            cross_modal_retrieval(np.eye(2), np.eye(2), [[], [MUSIC]], labels)
        with pytest.raises(AnymodalError, match="targets hold values that are not finite"):
            cross_modal_retrieval(np.eye(2), np.eye(2) * np.nan, labels, labels)


class TestRandomBaseline:
    def test_it_is_the_expectation_of_random_orders(self) -> None:
        rng = np.random.default_rng(12)
        audio, image = random_labels(60, rng, most=2), random_labels(80, rng, most=2)
        scores = random_baseline(audio, image, k=10)
        drawn = [
            np.nanmean(ndcg(np.array([rng.permutation(80) for _ in audio]), audio, image, 10))
            for _ in range(60)
        ]
        error = np.std(drawn) / math.sqrt(60)
        assert abs(np.mean(drawn) - scores.audio_to_image) < 4 * error
        assert scores.image_to_audio == pytest.approx(np.nanmean(expected_ndcg(image, audio, 10)))
        assert scores.mean == pytest.approx((scores.audio_to_image + scores.image_to_audio) / 2)

    def test_refusals(self) -> None:
        with pytest.raises(AnymodalError, match="none of 1 audio clips"):
            random_baseline([[MUSIC]], [[GUITAR]])
        with pytest.raises(AnymodalError, match="none of 0 audio clips"):
            random_baseline([], [])
