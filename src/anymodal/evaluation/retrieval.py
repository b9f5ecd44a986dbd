"""Cross-modal retrieval: how well the sounds of one joint space find the pictures, and back.

Goal: choose the pair of encoders whose translated embeddings lie closest (paper, sections 2.1
and 3.3). Every clip of one modality is a query, all clips of the other modality are the gallery,
and each query's first k answers are graded by their labels.

Conventions
-----------
Embeddings   float (clips, d), both modalities in one space. Rows need not have unit length: the
             similarity is the cosine, and a row of zeros has similarity 0 to everything. A value
             that is not finite is an error.
Labels       one list of AudioSet mids a clip, beside the embedding rows. Top labels are removed
             and relevance is 0 to 21 between clips: see `anymodal.ontology`.
Ranking      int (queries, at least min(k, gallery)): rows of the gallery, best first.
k            how many answers count. A gallery smaller than k counts whole.
chunk        queries worked on at once; changes memory and speed, never the result. No array
             grows with queries × gallery.

Gain
----
The gain of an answer is its relevance and the discount of rank i (from 1) is log2(i + 1). The
common alternative, a gain of 2^relevance − 1, is there as `gain="exponential"`: with relevances up
to 21 little but exact matches counts, as one step of distance halves the gain. The paper names
neither, but its scores are of the linear kind: random order of AudioSet's balanced list (4,654
clips of instruments, singing and tools) scores 0.82 with linear gain and 0.14 with exponential,
and the paper's Fig. 2 spans 0.79 to 0.815, chance among it. "Objects that Sound" has 0.407 for
chance, which only the exponential one comes near (0.35 with the top labels kept): scores of the
two papers do not compare.

Undefined queries
-----------------
A clip whose labels are all top labels (or that has none) has relevance 0 to everything: in the
gallery it is never a right answer. NDCG divides by the best score a query could reach, so a query
to which the whole gallery has relevance 0 has no NDCG: its value is NaN, and means leave it out.

Search
------
* :func:`top_k`: the k nearest rows of the gallery of every query

Metrics
-------
* :func:`ndcg`: normalised discounted cumulative gain of given rankings, a value per query
* :func:`expected_ndcg`: the same, expected of a gallery in random order (exact, nothing drawn)
* :func:`cross_modal_retrieval`: mean NDCG audio → image and image → audio
* :func:`random_baseline`: what random order scores there, drawn and expected
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anymodal.errors import AnymodalError
from anymodal.grading import Gain, Grading, Labels, positive

CHUNK = 1024
_BLOCK = 2**23
"""Most similarities held at once, however wide the gallery: 64 MiB of float64."""

# cosines are compared in steps of float32's resolution; see top_k
_STEPS = 2**23


def top_k(queries: np.ndarray, targets: np.ndarray, k: int = 30, chunk: int = CHUNK) -> np.ndarray:
    """The k nearest targets of every query by cosine similarity: an exact search.

    `queries` (n, d), `targets` (m, d) → int64 (n, min(k, m)), rows of `targets`, best first. Of
    equally similar targets the lower row comes first. Cosines are worked out in float64 and
    compared in steps of 2^-23, the resolution of float32 embeddings: without the steps the order
    of equal targets would hang on how the linear algebra library rounds at each place of a matrix.
    """
    queries, targets = _unit_rows(queries, "queries"), _unit_rows(targets, "targets")
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
    *,
    gain: Gain = "linear",
    chunk: int = CHUNK,
) -> np.ndarray:
    """NDCG@k of every query, float64 (queries,), within 0 to 1; NaN where undefined.

    `ranking` holds each query's answers as rows of the gallery, best first (as `top_k` gives
    them); columns beyond k are not read. The ideal is the best order of the whole gallery. Raises
    `AnymodalError` for a ranking that is too short, names a row that is not there or repeats one.
    """
    graded = Grading(query_labels, target_labels, k, gain, chunk)
    ranking = _checked_ranking(ranking, len(query_labels), len(target_labels), graded.k)
    scores = np.full(len(ranking), np.nan)
    for clips, group, block in graded.blocks():
        answers = graded.targets.of_clip[ranking[clips]]
        gains = graded.gains[block.relevance[group[:, None], answers]]
        # summed row by row: a matrix product would round by the size of the chunk
        gained = (gains * graded.discounts).sum(axis=1)
        scores[clips] = _ratio(gained, block.ideal[group])
    return scores


def expected_ndcg(
    query_labels: Labels,
    target_labels: Labels,
    k: int = 30,
    *,
    gain: Gain = "linear",
    chunk: int = CHUNK,
) -> np.ndarray:
    """NDCG@k of every query expected when the gallery is put in random order, float64 (queries,).

    Exact: at each rank the expected gain is the gallery's mean gain. NaN where undefined.
    """
    graded = Grading(query_labels, target_labels, k, gain, chunk)
    scores = np.full(len(query_labels), np.nan)
    for clips, group, block in graded.blocks():
        scores[clips] = _ratio(block.mean_gain * graded.discounts.sum(), block.ideal)[group]
    return scores


@dataclass(frozen=True)
class RetrievalScores:
    """NDCG@k both ways."""

    k: int
    n_audio: int
    n_image: int
    audio_to_image: float
    """Mean over the audio queries that have an NDCG."""
    image_to_audio: float
    """Mean over the image queries that have an NDCG."""
    audio_queries: np.ndarray
    """NDCG of every audio query, float64 (n_audio,), NaN where undefined."""
    image_queries: np.ndarray
    """NDCG of every image query, float64 (n_image,), NaN where undefined."""

    @property
    def mean(self) -> float:
        """Mean of the two directions, by which pairs of encoders are compared."""
        return (self.audio_to_image + self.image_to_audio) / 2


@dataclass(frozen=True)
class RandomScores:
    """NDCG@k of random order, both ways."""

    k: int
    audio_to_image: float
    """Expected mean NDCG, exact."""
    image_to_audio: float
    """Expected mean NDCG, exact."""
    audio_to_image_draws: np.ndarray
    """Mean NDCG of each random draw, float64 (draws,)."""
    image_to_audio_draws: np.ndarray
    """Mean NDCG of each random draw, float64 (draws,)."""


def cross_modal_retrieval(
    audio: np.ndarray,
    image: np.ndarray,
    audio_labels: Labels,
    image_labels: Labels,
    k: int = 30,
    *,
    gain: Gain = "linear",
    chunk: int = CHUNK,
) -> RetrievalScores:
    """Retrieve images by every sound and sounds by every image, and grade the answers.

    `audio` (n, d) and `image` (m, d) lie in one joint space; n and m may differ, as they do where
    sounds and pictures are paired by class alone. Raises `AnymodalError` where labels and
    embeddings do not match up, or where no query of a direction has an NDCG.
    """
    for name, rows, labels in (("audio", audio, audio_labels), ("image", image, image_labels)):
        if len(rows) != len(labels):
            raise AnymodalError(
                f"{len(rows)} {name} embeddings have {len(labels)} lists of labels; "
                "give one list a row"
            )
    forth = ndcg(
        top_k(audio, image, k, chunk), audio_labels, image_labels, k, gain=gain, chunk=chunk
    )
    back = ndcg(
        top_k(image, audio, k, chunk), image_labels, audio_labels, k, gain=gain, chunk=chunk
    )
    return RetrievalScores(
        k=k,
        n_audio=len(audio),
        n_image=len(image),
        audio_to_image=_mean(forth, "audio"),
        image_to_audio=_mean(back, "image"),
        audio_queries=forth,
        image_queries=back,
    )


def random_baseline(
    audio_labels: Labels,
    image_labels: Labels,
    k: int = 30,
    draws: int = 5,
    seed: int | np.random.Generator = 0,
    *,
    gain: Gain = "linear",
    chunk: int = CHUNK,
) -> RandomScores:
    """What random order of the gallery scores, both ways (paper, section 4.1: the red line).

    The expected score is exact and needs no draw; `draws` random orders (an own one for every
    query) show the spread around it. Raises `AnymodalError` like `cross_modal_retrieval`.
    """
    if draws < 0:
        raise AnymodalError(f"draws must be 0 or more, not {draws}")
    random = np.random.default_rng(seed)

    def both(queries: Labels, gallery: Labels, name: str) -> tuple[float, np.ndarray]:
        expected = _mean(expected_ndcg(queries, gallery, k, gain=gain, chunk=chunk), name)
        # all draws in one pass: relevance between label sets is worked out once
        ranking = _random_ranking(len(queries) * draws, len(gallery), k, random)
        scores = ndcg(ranking, list(queries) * draws, gallery, k, gain=gain, chunk=chunk)
        by_draw = scores.reshape(draws, len(queries))
        drawn = np.array([_mean(of_draw, name) for of_draw in by_draw], dtype=np.float64)
        return expected, drawn

    forth, forth_draws = both(audio_labels, image_labels, "audio")
    back, back_draws = both(image_labels, audio_labels, "image")
    return RandomScores(k, forth, back, forth_draws, back_draws)


def _unit_rows(embeddings: np.ndarray, name: str) -> np.ndarray:
    try:
        rows = np.asarray(embeddings, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise AnymodalError(f"{name} are no matrix of numbers ({error})") from None
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


def _random_ranking(n: int, m: int, k: int, random: np.random.Generator) -> np.ndarray:
    """The first min(k, m) places of n random orders of m rows, int64 (n, min(k, m))."""
    k = min(k, m)
    ranking = np.empty((n, k), dtype=np.int64)
    # Floyd's sampling, all queries at once: no array of n × m random numbers
    for place, largest in enumerate(range(m - k, m)):
        drawn = random.integers(0, largest + 1, size=n)
        taken = (ranking[:, :place] == drawn[:, None]).any(axis=1)
        ranking[:, place] = np.where(taken, largest, drawn)
    return random.permuted(ranking, axis=1)


def _ratio(gained: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    ratio = np.full(gained.shape, np.nan)
    np.divide(gained, ideal, out=ratio, where=ideal > 0)
    # a perfect ranking adds up in another order than its ideal and may pass 1 in the last digit
    return np.minimum(ratio, 1.0)


def _mean(scores: np.ndarray, name: str) -> float:
    defined = scores[~np.isnan(scores)]
    if not defined.size:
        raise AnymodalError(
            f"none of {len(scores)} {name} clips has a right answer to find; retrieval needs clips "
            "of both modalities with labels beside Music, Musical instrument, Tools and Singing"
        )
    return float(defined.mean())
