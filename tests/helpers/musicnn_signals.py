"""The sounds that the musicnn fixture was made from, as formulas: the same on every machine."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16_000
LENGTHS = {"1s": 16_000, "3s": 186 * 256}
"""Samples that give 63 frames (one second) and 187 frames (what the networks were trained on)."""


def signals(samples: int) -> dict[str, np.ndarray]:
    """Name → float32 (samples,) within [-1, 1]."""
    n = np.arange(samples, dtype=np.float64)
    seconds = n / SAMPLE_RATE
    total = samples / SAMPLE_RATE
    # exponential sweep, 50 Hz to 7.5 kHz
    rate = np.log(7500 / 50) / total
    sweep = 0.8 * np.sin(2 * np.pi * 50 / rate * (np.exp(rate * seconds) - 1))
    noise = np.modf(np.sin(12.9898 * (n + 1)) * 43758.5453)[0] * 0.3
    clicks = np.where(n % 2000 == 500, 1.0, 0.0)
    partials = [np.sin(2 * np.pi * 220 * k * seconds) / k for k in range(1, 12)]
    note = 0.4 * np.sum(partials, axis=0) * np.exp(-3 * seconds)
    found = {
        "sweep": sweep,
        "noise": noise,
        "clicks": clicks,
        "note": note,
        "silence": np.zeros(samples),
    }
    return {name: signal.astype(np.float32) for name, signal in found.items()}
