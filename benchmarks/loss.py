"""Claim: the contrastive loss needs a fraction of the time and memory of the dense formula.

Peers, both forward and backward through autograd on one batch of unit vectors:
    authors   the formula of the paper's code, audio anchors only: mask the diagonal out, repeat
              the positives over all negatives, clamp, average
    dense     the same for both directions, which is what `contrastive_loss` computes

Each runs in a process of its own; memory is the growth of the peak resident set over a process
that holds the batch alone. Prints the peers' figures over ours.

    python benchmarks/loss.py [--rows 4096] [--dim 128] [--repeats 7]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from anymodal.projection.losses import contrastive_loss

MARGIN = 1.0


def one_direction(similarity: Tensor) -> Tensor:
    n = len(similarity)
    negatives = similarity[~torch.eye(n, dtype=torch.bool)].reshape(n, n - 1)
    positives = similarity.diagonal().reshape(n, 1).repeat(1, n - 1)
    return torch.clamp(MARGIN - positives + negatives, min=0).mean()


def authors(audio: Tensor, image: Tensor) -> Tensor:
    return one_direction(audio @ image.T)


def dense(audio: Tensor, image: Tensor) -> Tensor:
    similarity = audio @ image.T
    return (one_direction(similarity) + one_direction(similarity.T)) / 2


def ours(audio: Tensor, image: Tensor) -> Tensor:
    return contrastive_loss(audio, image, None, MARGIN)


def ours_by_class(audio: Tensor, image: Tensor) -> Tensor:
    return contrastive_loss(audio, image, torch.arange(len(audio)) % 18, MARGIN)


VARIANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "authors": authors,
    "dense": dense,
    "ours": ours,
    "ours, 18 classes": ours_by_class,
}


def measure(task: tuple[str, int, int, int, int]) -> tuple[float, float, float]:
    """Median seconds, MiB of peak growth, and the value."""
    name, rows, dim, repeats, threads = task
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    sides = torch.nn.functional.normalize(torch.randn(2, rows, dim, generator=generator), dim=2)
    audio, image = (side.clone().requires_grad_() for side in sides)
    loss = VARIANTS[name]
    # a small call first, so that code loaded on first use counts for nobody
    loss(audio[:8], image[:8]).backward()
    audio.grad = image.grad = None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        audio.grad = image.grad = None
        began = time.perf_counter()
        value = loss(audio, image)
        value.backward()
        seconds.append(time.perf_counter() - began)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return statistics.median(seconds), grown / unit, value.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"batch {options.rows} x {options.dim}, float32, {options.threads} threads")
    print(f"{'':18}{'ms':>9}{'MiB':>8}{'value':>11}")
    results = {}
    for name in VARIANTS:
        task = (name, options.rows, options.dim, options.repeats, options.threads)
        # spawn: a forked child would start with its parent's peak
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[name] = seconds, mib, value = pool.apply(measure, (task,))
        print(f"{name:18}{1e3 * seconds:9.1f}{mib:8.0f}{value:11.6f}")
    for peer in ("authors", "dense"):
        time_ratio = results[peer][0] / results["ours"][0]
        memory_ratio = results[peer][1] / results["ours"][1]
        print(f"{peer} / ours: time {time_ratio:.1f}x, memory {memory_ratio:.1f}x")


if __name__ == "__main__":
    main()
