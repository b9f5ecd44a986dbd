"""Claim: an epoch of the paper's size takes a fraction of a plain PyTorch loop's time.

Peer: the same network, optimiser and batches, with a shuffling DataLoader over the pairs and the
dense formula of the authors' loss (audio anchors only: half of what ours computes). Both end an
epoch with a validation pass. Random embeddings, all in memory. Prints the ratio of their best
epochs.

    python benchmarks/training.py [--pairs 130000] [--epochs 2]
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from anymodal.config.params import TranslateParams
from anymodal.data.pairing import Pairs
from anymodal.projection.training import train_translation
from anymodal.projection.translation import Translation

AUDIO_DIM, IMAGE_DIM = 1024, 2048  # YAMNet and ResNet50


def dense(audio: Tensor, image: Tensor, margin: float) -> Tensor:
    similarity = audio @ image.T
    n = len(similarity)
    negatives = similarity[~torch.eye(n, dtype=torch.bool)].reshape(n, n - 1)
    positives = similarity.diagonal().reshape(n, 1).repeat(1, n - 1)
    return torch.clamp(margin - positives + negatives, min=0).mean()


def plain_loop(
    audio: np.ndarray, image: np.ndarray, train: np.ndarray, valid: np.ndarray, p: TranslateParams
) -> list[float]:
    """Seconds of each epoch."""
    torch.manual_seed(0)
    model = Translation(AUDIO_DIM, IMAGE_DIM, p.hidden, p.dim)
    optimiser = torch.optim.Adam(model.parameters(), lr=p.learning_rate)
    # slices, not index arrays: the peer need not copy the data either
    loaders = [
        DataLoader(
            TensorDataset(*(torch.from_numpy(x[rows[0] : rows[-1] + 1]) for x in (audio, image))),
            batch_size=p.batch_size,
            shuffle=rows is train,
        )
        for rows in (train, valid)
    ]
    seconds = []
    for _ in range(p.max_epochs):
        began = time.perf_counter()
        model.train()
        for batch in loaders[0]:
            loss = dense(*model(*batch), p.margin)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            for batch in loaders[1]:
                dense(*model(*batch), p.margin)
        seconds.append(time.perf_counter() - began)
    return seconds


def peak_mib() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=130_000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((options.pairs, AUDIO_DIM), dtype=np.float32)
    image = rng.standard_normal((options.pairs, IMAGE_DIM), dtype=np.float32)
    rows = np.arange(options.pairs)
    train, valid = np.split(rows, [options.pairs * 9 // 10])
    params = TranslateParams(
        batch_size=options.batch, max_epochs=options.epochs, patience=options.epochs, device="cpu"
    )
    held = peak_mib()
    result = train_translation(
        audio, image, lambda rng: Pairs(train, train, train), Pairs(valid, valid, valid), params, 0
    )
    ours = [entry["seconds"] for entry in result.history]
    print(f"{options.pairs} pairs, batch {options.batch}, {options.threads} threads")
    print(f"data {held:.0f} MiB, training adds {peak_mib() - held:.0f} MiB")
    print("ours  ", " ".join(f"{s:.1f}" for s in ours), "s an epoch")
    peer = plain_loop(audio, image, train, valid, params)
    print("plain ", " ".join(f"{s:.1f}" for s in peer), "s an epoch;", f"peak {peak_mib():.0f} MiB")
    print(f"plain / ours: {min(peer) / min(ours):.1f}x")


if __name__ == "__main__":
    main()
