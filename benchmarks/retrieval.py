"""Claim: NDCG@30 of 10,000 × 10,000 clips both ways, relevance from the taxonomy included, takes
less time and memory than scikit-learn's `ndcg_score` and gives the same numbers.

    python benchmarks/retrieval.py [--clips 10000] [--label-sets 130]

Three runs, each in a process of its own so that its peak memory is its own; making the clips and
the taxonomy's distances is not timed:

* anymodal: `cross_modal_retrieval`, from embeddings and lists of labels to both scores.
* ndcg_score, relevance given: cosine matrix, relevance of every distinct pair of label sets worked
  out once and spread over the full matrix, then `ndcg_score` both ways. The kindest peer.
* ndcg_score, relevance per pair: the straightforward script, which takes the maximum over label
  pairs for each pair of clips. Run on the first 200 audio queries against the whole gallery, one
  way; its time is scaled up to all queries of both ways.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SAMPLE = 200
DIMENSIONS = 128
K = 30
MOST_SETS_FOR_PEER = 500
"""Beyond this many label sets the peer's own loop over their pairs is what takes its time."""


def make(clips: int, label_sets: int) -> tuple[np.ndarray, np.ndarray, list, list]:
    """Embeddings that carry the labels faintly, and label lists drawn as unevenly as AudioSet's."""
    from anymodal.ontology.graph import TOP_LABELS, ontology

    random = np.random.default_rng(0)
    known = ontology()
    instruments = sorted(known.descendants(known.mid("Musical instrument")) - {*TOP_LABELS})
    sets: set[tuple[str, ...]] = set()
    while len(sets) < label_sets:
        size = random.integers(1, 4)
        sets.add(tuple(sorted(random.choice(instruments, size=size, replace=False).tolist())))
    ordered = sorted(sets)
    share = 1 / np.arange(1, label_sets + 1) ** 0.8
    centres = random.normal(size=(label_sets, DIMENSIONS))
    sides: list[Any] = []
    for _ in range(2):
        drawn = random.choice(label_sets, size=clips, p=share / share.sum())
        noise = random.normal(size=(clips, DIMENSIONS)) * 3
        sides.append((centres[drawn] + noise).astype(np.float32))
        sides.append([[*ordered[one], TOP_LABELS[0]] for one in drawn])
    audio, audio_labels, image, image_labels = sides
    return audio, image, audio_labels, image_labels


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Full cosine matrix."""
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return a @ b.T


def ours(clips: int, label_sets: int) -> tuple[float, Any]:
    """Seconds and (mean scores, the sample's scores)."""
    from anymodal.evaluation.retrieval import cross_modal_retrieval
    from anymodal.ontology.graph import ontology

    audio, image, audio_labels, image_labels = make(clips, label_sets)
    _ = ontology().distance_matrix
    start = time.perf_counter()
    scores = cross_modal_retrieval(audio, image, audio_labels, image_labels, K)
    seconds = time.perf_counter() - start
    sample = float(scores.audio_queries[:SAMPLE].mean())
    return seconds, (*dict(scores.directions).values(), sample)


def relevance_given(clips: int, label_sets: int) -> tuple[float, Any]:
    """Seconds and mean scores."""
    from sklearn.metrics import ndcg_score

    from anymodal.ontology.graph import ontology, relevance

    audio, image, audio_labels, image_labels = make(clips, label_sets)
    _ = ontology().distance_matrix
    start = time.perf_counter()
    places: dict[tuple[str, ...], int] = {}
    rows = [
        np.array([places.setdefault(tuple(labels), len(places)) for labels in side])
        for side in (audio_labels, image_labels)
    ]
    between = np.array([[relevance(a, b) for b in places] for a in places])
    true = between[np.ix_(*rows)]
    cosine = cosines(audio, image)
    scores = (
        ndcg_score(true, cosine, k=K, ignore_ties=True),
        ndcg_score(true.T, cosine.T, k=K, ignore_ties=True),
    )
    return time.perf_counter() - start, scores


def relevance_per_pair(clips: int, label_sets: int) -> tuple[float, Any]:
    """Seconds for the sample, one way, and its mean score."""
    from sklearn.metrics import ndcg_score

    from anymodal.ontology.graph import MAX_DISTANCE, TOP_LABELS, ontology

    audio, image, audio_labels, image_labels = make(clips, label_sets)
    matrix = ontology().distance_matrix.tolist()
    row = {mid: place for place, mid in enumerate(ontology())}
    start = time.perf_counter()
    queries = [[row[mid] for mid in labels if mid not in TOP_LABELS] for labels in audio_labels]
    gallery = [[row[mid] for mid in labels if mid not in TOP_LABELS] for labels in image_labels]
    true = [
        [MAX_DISTANCE - min(matrix[x][y] for x in a for y in b) for b in gallery]
        for a in queries[:SAMPLE]
    ]
    score = ndcg_score(true, cosines(audio[:SAMPLE], image), k=K, ignore_ties=True)
    return time.perf_counter() - start, score


def _call(
    run: Callable[[int, int], tuple[float, Any]], arguments: tuple[int, int], pipe: Any
) -> None:
    seconds, result = run(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send((seconds, result, peak / 1024))


def alone(
    run: Callable[[int, int], tuple[float, Any]], *arguments: int
) -> tuple[float, Any, float]:
    """Run in a fresh process: seconds, result, peak resident memory in MiB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(run, arguments, sender))
    process.start()
    sender.close()
    try:
        seconds, result, peak = receiver.recv()
    finally:
        process.join()
    return seconds, result, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--label-sets", type=int, default=130)
    options = parser.parse_args()
    arguments = (options.clips, options.label_sets)

    clips = options.clips
    print(
        f"{clips:,} × {clips:,} clips, {DIMENSIONS}-d, {options.label_sets:,} label sets, "
        f"NDCG@{K} both ways"
    )
    seconds, (forth, back, sample), peak = alone(ours, *arguments)
    line = "{:34}{:9.2f} s   peak {:6,.0f} MiB   scores {:.6f} {:.6f}"
    print(line.format("anymodal", seconds, peak, forth, back))

    agree = True
    if options.label_sets <= MOST_SETS_FOR_PEER:
        given_seconds, given, given_peak = alone(relevance_given, *arguments)
        agree &= bool(np.allclose((forth, back), given, atol=1e-5))
        print(line.format("ndcg_score, relevance given", given_seconds, given_peak, *given))
        print(f"  ratio: time {given_seconds / seconds:.1f}, memory {given_peak / peak:.1f}")

    pair_seconds, pair_score, _ = alone(relevance_per_pair, *arguments)
    queries = min(SAMPLE, clips)
    scaled = pair_seconds * clips / queries * 2
    agree &= bool(np.isclose(sample, pair_score, atol=1e-5))
    print(
        f"{'ndcg_score, relevance per pair':34}{scaled:9.2f} s   scaled from {pair_seconds:.2f} s "
        f"for {queries} queries one way, whose score is {pair_score:.6f} (anymodal {sample:.6f})"
    )
    print(f"  ratio: time {scaled / seconds:.1f}")
    print("scores agree" if agree else "SCORES DIFFER")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
