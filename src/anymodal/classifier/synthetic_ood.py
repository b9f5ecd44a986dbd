"""Sounds and pictures that are no instrument, made from numbers: what a classifier must not name.

They measure how often it says `unknown`; nothing is fitted on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from anymodal.encoders.base import Modality

SIDE = 224
"""Pixels of a picture's side."""


def noise(sample_rate: int, chance: np.random.Generator) -> np.ndarray:
    """One second of white, pink or brown noise, of clicks, or of silence, float32 (samples,)."""
    kind = chance.choice(["white", "pink", "brown", "clicks", "silence"])
    sound = chance.standard_normal(sample_rate)
    if kind == "silence":
        sound = np.zeros(sample_rate)
    elif kind == "clicks":
        sound = sound * (chance.random(sample_rate) < 0.002)
    elif kind in ("pink", "brown"):
        spectrum = np.fft.rfft(sound)
        slope = 0.5 if kind == "pink" else 1.0
        sound = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** slope, sample_rate)
    return _scaled(sound, chance.uniform(0.1, 0.9))


def speech(sample_rate: int, chance: np.random.Generator) -> np.ndarray:
    """One second like speech: a gliding buzz through formants that change eight times, with hisses
    and pauses (a source and filter, as in Fant's theory), float32 (samples,)."""
    time = np.arange(sample_rate) / sample_rate
    glide = 1 + 0.15 * np.sin(2 * np.pi * chance.uniform(2, 5) * time + chance.uniform(0, 6))
    phase = np.cumsum(chance.uniform(90, 240) * glide) / sample_rate
    buzz = 2 * (phase % 1) - 1
    sound = np.zeros(sample_rate)
    for part in np.array_split(np.arange(sample_rate), 8):
        kind = chance.choice(["vowel", "hiss", "pause"], p=[0.65, 0.23, 0.12])
        if kind == "pause":
            continue
        voice = buzz[part] if kind == "vowel" else 0.3 * chance.standard_normal(len(part))
        for low, high, width in ((300, 800, 80), (900, 2300, 100), (2400, 3200, 150)):
            voice = _resonance(voice, chance.uniform(low, high), width, sample_rate)
        sound[part] = _scaled(voice, chance.uniform(0.3, 1.0))
    return _scaled(sound, chance.uniform(0.2, 0.8))


def texture(chance: np.random.Generator) -> np.ndarray:
    """A plain colour, noise, stripes, a chequerboard or clouds, uint8 (SIDE, SIDE, 3)."""
    kind = chance.choice(["plain", "noise", "stripes", "chequers", "clouds"])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    colour = chance.integers(50, 256, 3)
    if kind == "noise":
        return chance.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    if kind == "plain":
        shade = np.ones((SIDE, SIDE))
    elif kind == "stripes":
        angle = chance.uniform(0, np.pi)
        across = columns * np.cos(angle) + rows * np.sin(angle)
        shade = (np.sin(across / chance.uniform(2, 20)) + 1) / 2
    elif kind == "chequers":
        size = chance.integers(4, 30)
        shade = ((columns // size + rows // size) % 2).astype(np.float64)
    else:
        shade = gaussian_filter(chance.standard_normal((SIDE, SIDE)), chance.uniform(2, 12))
        shade = (shade - shade.min()) / np.ptp(shade)
    return (shade[:, :, None] * colour).clip(0, 255).astype(np.uint8)


def kinds(
    sample_rate: int,
) -> dict[str, tuple[Modality, Callable[[np.random.Generator], np.ndarray]]]:
    """Every kind with its modality and what makes one of it."""
    return {
        "noise": ("audio", lambda chance: noise(sample_rate, chance)),
        "speech-like": ("audio", lambda chance: speech(sample_rate, chance)),
        "texture": ("image", texture),
    }


def _resonance(sound: np.ndarray, hertz: float, width: float, sample_rate: int) -> np.ndarray:
    radius = np.exp(-np.pi * width / sample_rate)
    turn = 2 * np.pi * hertz / sample_rate
    return lfilter([1 - radius], [1, -2 * radius * np.cos(turn), radius**2], sound)


def _scaled(sound: np.ndarray, peak: float) -> np.ndarray:
    loudest = float(np.abs(sound).max(initial=0.0))
    return (sound * (peak / loudest) if loudest else sound).astype(np.float32)
