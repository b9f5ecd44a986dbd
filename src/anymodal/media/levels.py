"""Level of audio and contrast of an image: what tells silent and blank windows from the others."""

from __future__ import annotations

import numpy as np

FLOOR_DBFS = -200.0
"""Level of digital silence, whose decibels would be −∞."""


def rms_dbfs(samples: np.ndarray) -> float:
    """Root mean square of audio, (samples,), in dB of full scale; a square wave has 0."""
    wide = samples.astype(np.float64)
    return _decibels(float(np.sqrt(np.mean(wide**2))) if len(wide) else 0.0)


def peak_dbfs(samples: np.ndarray) -> float:
    """Largest magnitude of audio, (samples,), in dB of full scale."""
    return _decibels(float(np.abs(samples).max(initial=0.0)))


def contrast(pixels: np.ndarray) -> float:
    """Standard deviation of the brightness (mean of the colours, 0 to 255) of an image."""
    # float32, because photographs are large
    return float(pixels.mean(axis=2, dtype=np.float32).std())


def _decibels(amplitude: float) -> float:
    return max(FLOOR_DBFS, float(20 * np.log10(amplitude))) if amplitude else FLOOR_DBFS
