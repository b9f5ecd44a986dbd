"""Clips per second: the batch interface against one clip at a time, and against building the
network for every file, as a script that starts from `load` for each would.

    python benchmarks/extraction.py [--threads 1] [encoder ...]

Prints, for each encoder, the speed of the three and their ratios; all in one run on one device,
the three taking turns, the best round of each.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from anymodal import encoders
from anymodal.encoders.base import Encoder

CLIPS = {"batched": 32, "one by one": 32, "rebuilt": 2}
ROUNDS = 5


def items(encoder: Encoder, count: int) -> list[np.ndarray]:
    """Noise of the size of real clips: 1 s of sound, or a 320 × 240 picture."""
    rng = np.random.default_rng(0)
    if encoder.sample_rate is not None:
        return [0.1 * rng.standard_normal(encoder.sample_rate, np.float32) for _ in range(count)]
    return [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(count)]


def measure(name: str, device: str) -> dict[str, float]:
    """Clips per second of each way; the best round is the one least disturbed by the machine."""
    encoder = encoders.get(name, device)
    batch = items(encoder, max(CLIPS.values()))
    encoder.embed(batch[:2])  # the first pass allocates

    def one_by_one(clips: list[np.ndarray]) -> None:
        for clip in clips:
            encoder.embed([clip])

    def rebuilt(clips: list[np.ndarray]) -> None:
        for clip in clips:
            encoders.get(name, device).embed([clip])

    ways = {"batched": encoder.embed, "one by one": one_by_one, "rebuilt": rebuilt}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for way, work in ways.items():
            start = time.perf_counter()
            work(batch[: CLIPS[way]])
            best[way] = min(best[way], time.perf_counter() - start)
    return {way: CLIPS[way] / seconds for way, seconds in best.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("encoders", nargs="*", default=["musicnn_mtt", "efficientnet_lite0"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"PyTorch {torch.__version__}, {arguments.threads} thread(s), device {arguments.device}")
    for name in arguments.encoders:
        speed = measure(name, arguments.device)
        print(name, *(f"{way} {clips:.1f}/s" for way, clips in speed.items()), sep="   ")
        for way in ("one by one", "rebuilt"):
            print(f"    batched / {way}: {speed['batched'] / speed[way]:.2f}")


if __name__ == "__main__":
    main()
