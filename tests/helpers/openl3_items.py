"""The waveforms and images that the OpenL3 fixture was made from: the same on every machine."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 48_000


def waveforms() -> dict[str, np.ndarray]:
    """Name → one second, float32 (48000,), within [-1, 1]."""
    n = np.arange(SAMPLE_RATE, dtype=np.float64)
    seconds = n / SAMPLE_RATE
    noise = np.modf(np.sin(12.9898 * (n + 1)) * 43758.5453)[0]
    partials = [np.sin(2 * np.pi * 220 * k * seconds) / k for k in range(1, 40)]
    note = 0.4 * np.sum(partials, axis=0) * np.exp(-3 * seconds) + 1e-3 * noise
    rate = np.log(20_000 / 30)
    sweep = np.sign(np.sin(2 * np.pi * 30 / rate * (np.exp(rate * seconds) - 1)))
    found = {"note": note, "clipped sweep": sweep, "silence": np.zeros(SAMPLE_RATE)}
    return {name: sound.astype(np.float32) for name, sound in found.items()}


def images() -> dict[str, np.ndarray]:
    """Name → uint8 (height, width, 3): each way in which the publisher prepares images."""
    return {
        "large": _picture(301, 420, 255),
        "up to 256 px": _picture(256, 341, 180),
        "224 px": _picture(224, 224, 255),
    }


def _picture(height: int, width: int, brightest: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / (5 + 3 * c) + c) * np.cos(y / (9 - 2 * c)) for c in range(3)]
    grain = np.modf(np.sin(12.9898 * x + 78.233 * y) * 43758.5453)[0]
    values = 0.5 + 0.35 * np.stack(waves, axis=2) + 0.15 * grain[..., None]
    return np.clip(np.round(values * brightest), 0, brightest).astype(np.uint8)
