"""Cross-modal retrieval: how well audio finds images in a joint space, and images audio.

Every clip of one modality is a query and all clips of the other are the gallery; the first k
answers of each query are graded by their labels (paper, sections 2.1 and 3.3).

Embeddings   float (clips, dim), both modalities in one space; the similarity is the cosine, and a
             row of zeros has similarity 0 to everything.
Labels       one list of AudioSet mids per clip; relevance between clips is 0 to 21
             (`anymodal.ontology.graph`).
Ranking      int (queries, at least min(k, gallery)): rows of the gallery, best first.
Gain         relevance; the discount of rank i is log2(i + 1).
Undefined    a query to which the whole gallery has relevance 0 has NDCG NaN; means skip it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Measured, Record
from anymodal.embeddings.rows import PairRows
from anymodal.evaluation.relevance import Grading, Labels, positive
from anymodal.projection.base import Projection

CHUNK = 1024
_BLOCK = 2**23
"""Most similarities held at once, however wide the gallery: 64 MiB of float64."""

_STEPS = 2**23
"""Cosines are compared in steps of 2^-23: otherwise the order of equal targets would depend on how
the linear algebra library rounds."""


def top_k(queries: np.ndarray, targets: np.ndarray, k: int = 30, chunk: int = CHUNK) -> np.ndarray:
    """The k nearest targets of every query by cosine similarity: an exact search.

    `queries` (n, dim), `targets` (m, dim) → int64 (n, min(k, m)), rows of `targets`, best first; of
    equally similar targets the lower row first. `chunk` queries are worked on at once; it changes
    memory and speed, never the result.
    """
    queries, targets = unit_rows(queries, "queries"), unit_rows(targets, "targets")
    if queries.shape[1] != targets.shape[1]:
        raise AnymodalError(
            f"queries have {queries.shape[1]} dimensions and targets {targets.shape[1]}; "
            "both must come from one joint space"
        )
    positive(k, "k")
    positive(chunk, "chunk")
    n, m = len(queries), len(targets)
    k = min(k, m)
    nearest = np.empty((n, k), dtype=np.int64)
    if k == 0:
        return nearest
    targets = targets.T * _STEPS
    places = np.arange(m, dtype=np.float64)
    step = max(1, min(chunk, _BLOCK // m))
    for rows in (slice(first, first + step) for first in range(0, n, step)):
        # similarity and row become one whole number, exact in float64 while m < 2^29: partition
        # and sort then break ties by themselves
        keys = queries[rows] @ targets
        np.rint(keys, out=keys)
        keys *= -m
        keys += places
        keys.partition(k - 1, axis=1)
        best = np.sort(keys[:, :k], axis=1)
        nearest[rows] = np.mod(best, m)
    return nearest


def ndcg(
    ranking: np.ndarray,
    query_labels: Labels,
    target_labels: Labels,
    k: int = 30,
) -> np.ndarray:
    """NDCG@k of every query, float64 (queries,), within 0 to 1; NaN where undefined.

    `ranking` holds each query's answers as rows of the gallery, best first; columns beyond k are
    not read. The ideal is the best order of the whole gallery. Raises `AnymodalError` for a ranking
    that is too short, names a row that is not there or repeats one.
    """
    graded = Grading(query_labels, target_labels, k)
    ranking = _checked_ranking(ranking, len(query_labels), len(target_labels), graded.k)
    scores = np.full(len(ranking), np.nan)
    for clips, group, block in graded.blocks():
        answers = graded.targets.of_clip[ranking[clips]]
        gains = block.relevance[group[:, None], answers]
        # summed row by row: a matrix product would round by the size of the chunk
        gained = (gains * graded.discounts).sum(axis=1)
        scores[clips] = _ratio(gained, block.ideal[group])
    return scores


def expected_ndcg(query_labels: Labels, target_labels: Labels, k: int = 30) -> np.ndarray:
    """NDCG@k of every query expected when the gallery is put in random order, float64 (queries,).

    Exact: at each rank the expected gain is the gallery's mean gain. NaN where undefined.
    """
    graded = Grading(query_labels, target_labels, k)
    scores = np.full(len(query_labels), np.nan)
    for clips, group, block in graded.blocks():
        scores[clips] = _ratio(block.mean_gain * graded.discounts.sum(), block.ideal)[group]
    return scores


class Directions(Record):
    """NDCG@k in both directions, means over the queries that have one."""

    audio_to_image: float
    image_to_audio: float

    @property
    def mean(self) -> float:
        """Mean of the two directions, by which pairs of encoders are compared."""
        return (self.audio_to_image + self.image_to_audio) / 2


class RetrievalScores(NamedTuple):
    """NDCG@k, and that of every query: float64 (queries,), NaN where undefined."""

    directions: Directions
    audio_queries: np.ndarray
    image_queries: np.ndarray


class SeedDirections(Directions):
    """NDCG@k of one training of the translation."""

    seed: int


class Untranslated(Directions):
    """NDCG@k in a space that two encoders share without translation."""

    audio: str
    image: str


class RetrievalResult(Measured):
    """What stage `retrieve` measured of one pair of encoders."""

    audio: str
    image: str
    top_k: int
    n_audio: int
    n_image: int
    translation: tuple[SeedDirections, ...]
    pca: Directions
    random: Directions
    """Expected of random order: chance."""
    untranslated: Untranslated | None = None


def cross_modal_retrieval(
    audio: np.ndarray,
    image: np.ndarray,
    audio_labels: Labels,
    image_labels: Labels,
    k: int = 30,
    chunk: int = CHUNK,
) -> RetrievalScores:
    """Retrieve images by every audio clip and audio by every image, and grade the answers.

    `audio` (n, dim) and `image` (m, dim) lie in one joint space. Raises `AnymodalError` where
    labels and embeddings do not match, or no query of a direction has an NDCG.
    """
    for name, rows, labels in (("audio", audio, audio_labels), ("image", image, image_labels)):
        if len(rows) != len(labels):
            raise AnymodalError(
                f"{len(rows)} {name} embeddings have {len(labels)} lists of labels; "
                "give one list per row"
            )
    forth = ndcg(top_k(audio, image, k, chunk), audio_labels, image_labels, k)
    back = ndcg(top_k(image, audio, k, chunk), image_labels, audio_labels, k)
    return RetrievalScores(_means(forth, back), forth, back)


def retrieve_rows(
    projection: Projection,
    rows: PairRows,
    k: int,
    chunk: int,
    chosen: Mapping[Modality, np.ndarray] | None = None,
) -> RetrievalScores:
    """`cross_modal_retrieval` among embedded clips, or the `chosen` positions of them."""
    if chosen is not None:
        rows = {modality: rows[modality].take(chosen[modality]) for modality in MODALITIES}
    return cross_modal_retrieval(
        projection.project("audio", rows["audio"].matrix),
        projection.project("image", rows["image"].matrix),
        rows["audio"].clips["labels"].to_list(),
        rows["image"].clips["labels"].to_list(),
        k=k,
        chunk=chunk,
    )


def random_baseline(audio_labels: Labels, image_labels: Labels, k: int = 30) -> Directions:
    """Expected NDCG@k of a gallery in random order, exact (paper, section 4.1: the red line).

    Raises `AnymodalError` like `cross_modal_retrieval`.
    """
    forth = expected_ndcg(audio_labels, image_labels, k)
    back = expected_ndcg(image_labels, audio_labels, k)
    return _means(forth, back)


def unit_rows(embeddings: np.ndarray, name: str) -> np.ndarray:
    """`embeddings` (n, dim) as float64 of length 1; rows of zeros stay. Raises `AnymodalError`."""
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2:
        raise AnymodalError(f"{name} must be a matrix (clips, dimensions), not {rows.ndim}-d")
    spoilt = ~np.isfinite(rows).all(axis=1)
    if spoilt.any():
        raise AnymodalError(
            f"{name} hold values that are not finite, first in row {int(spoilt.argmax())} "
            f"({int(spoilt.sum())} row(s) in all); embed those clips again"
        )
    # scaled before squaring, so that no row overflows or vanishes
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1.0)
    return rows


def _checked_ranking(ranking: np.ndarray, n: int, m: int, k: int) -> np.ndarray:
    ranking = np.asarray(ranking)
    if ranking.ndim != 2 or not np.issubdtype(ranking.dtype, np.integer):
        raise AnymodalError("a ranking is an integer matrix (queries, answers)")
    if ranking.shape[0] != n or ranking.shape[1] < k:
        raise AnymodalError(
            f"the ranking is {ranking.shape[0]} × {ranking.shape[1]}, "
            f"but {n} queries with {k} answers each are graded"
        )
    ranking = ranking[:, :k]
    if ranking.size and (ranking.min() < 0 or ranking.max() >= m):
        raise AnymodalError(f"the ranking names a row outside the gallery of {m}")
    ordered = np.sort(ranking, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise AnymodalError("the ranking names one row of the gallery twice for one query")
    return ranking


def _ratio(gained: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    ratio = np.full(gained.shape, np.nan)
    np.divide(gained, ideal, out=ratio, where=ideal > 0)
    # a perfect ranking adds up in another order than its ideal and may pass 1 in the last digit
    return np.minimum(ratio, 1.0)


def _means(forth: np.ndarray, back: np.ndarray) -> Directions:
    return Directions(audio_to_image=_mean(forth, "audio"), image_to_audio=_mean(back, "image"))


def _mean(scores: np.ndarray, name: str) -> float:
    defined = scores[~np.isnan(scores)]
    if not defined.size:
        raise AnymodalError(
            f"none of {len(scores)} {name} clips has a right answer to find; retrieval needs clips "
            "of both modalities with labels beside Music, Musical instrument, Tools and Singing"
        )
    return float(defined.mean())
