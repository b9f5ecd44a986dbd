"""Synthetic audio and images that show no instrument: how often does a classifier say `unknown`?

Nothing is fitted on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from anymodal.core.modality import Modality

SIDE = 224
"""Pixels of an image's side."""

Make = Callable[[np.random.Generator], np.ndarray]


def kinds(sample_rate: int) -> dict[str, tuple[Modality, Make]]:
    """Return each kind's modality and the function that makes an item of it."""
    return {
        "noise": ("audio", partial(noise, sample_rate)),
        "speech-like": ("audio", partial(speech, sample_rate)),
        "texture": ("image", texture),
    }


def noise(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """One second of white, pink or brown noise, of clicks, or of silence, float32 (samples,)."""
    kind = rng.choice(["white", "pink", "brown", "clicks", "silence"])
    samples = rng.standard_normal(sample_rate)
    if kind == "silence":
        samples = np.zeros(sample_rate)
    elif kind == "clicks":
        samples = samples * (rng.random(sample_rate) < 0.002)
    elif kind in ("pink", "brown"):
        spectrum = np.fft.rfft(samples)
        slope = 0.5 if kind == "pink" else 1.0
        samples = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** slope, sample_rate)
    return _scaled(samples, rng.uniform(0.1, 0.9))


def speech(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """One second like speech: a gliding buzz through formants that change eight times, with hisses
    and pauses (source and filter, as in Fant's theory), float32 (samples,)."""
    time = np.arange(sample_rate) / sample_rate
    glide = 1 + 0.15 * np.sin(2 * np.pi * rng.uniform(2, 5) * time + rng.uniform(0, 6))
    phase = np.cumsum(rng.uniform(90, 240) * glide) / sample_rate
    buzz = 2 * (phase % 1) - 1
    samples = np.zeros(sample_rate)
    for part in np.array_split(np.arange(sample_rate), 8):
        kind = rng.choice(["vowel", "hiss", "pause"], p=[0.65, 0.23, 0.12])
        if kind == "pause":
            continue
        voice = buzz[part] if kind == "vowel" else 0.3 * rng.standard_normal(len(part))
        for low, high, width in ((300, 800, 80), (900, 2300, 100), (2400, 3200, 150)):
            voice = _resonance(voice, rng.uniform(low, high), width, sample_rate)
        samples[part] = _scaled(voice, rng.uniform(0.3, 1.0))
    return _scaled(samples, rng.uniform(0.2, 0.8))


def texture(rng: np.random.Generator) -> np.ndarray:
    """A plain colour, noise, stripes, a chequerboard or clouds, uint8 (SIDE, SIDE, 3)."""
    kind = rng.choice(["plain", "noise", "stripes", "chequers", "clouds"])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    colour = rng.integers(50, 256, 3)
    if kind == "noise":
        return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    if kind == "plain":
        shade = np.ones((SIDE, SIDE))
    elif kind == "stripes":
        angle = rng.uniform(0, np.pi)
        distance = columns * np.cos(angle) + rows * np.sin(angle)
        shade = (np.sin(distance / rng.uniform(2, 20)) + 1) / 2
    elif kind == "chequers":
        size = rng.integers(4, 30)
        shade = ((columns // size + rows // size) % 2).astype(np.float64)
    else:
        shade = gaussian_filter(rng.standard_normal((SIDE, SIDE)), rng.uniform(2, 12))
        shade = (shade - shade.min()) / np.ptp(shade)
    return (shade[:, :, None] * colour).clip(0, 255).astype(np.uint8)


def _resonance(samples: np.ndarray, hertz: float, width: float, sample_rate: int) -> np.ndarray:
    radius = np.exp(-np.pi * width / sample_rate)
    turn = 2 * np.pi * hertz / sample_rate
    return lfilter([1 - radius], [1, -2 * radius * np.cos(turn), radius**2], samples)


def _scaled(samples: np.ndarray, peak: float) -> np.ndarray:
    loudest = float(np.abs(samples).max(initial=0.0))
    return (samples * (peak / loudest) if loudest else samples).astype(np.float32)
