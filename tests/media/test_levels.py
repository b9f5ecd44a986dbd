import numpy as np
import pytest

from anymodal.media.levels import FLOOR_DBFS, contrast, peak_dbfs, rms_dbfs


def test_levels_by_hand():
    square = np.array([1, -1] * 50, np.float32)
    assert rms_dbfs(square) == peak_dbfs(square) == 0.0
    assert rms_dbfs(square / 1000) == pytest.approx(-60, abs=1e-4)
    sine = 0.5 * np.sin(np.linspace(0, 20 * np.pi, 10_001))
    assert rms_dbfs(sine) == pytest.approx(20 * np.log10(0.5 / 2**0.5), abs=0.01)
    assert peak_dbfs(sine) == pytest.approx(20 * np.log10(0.5), abs=0.01)
    for silence in (np.zeros(7, np.float32), np.zeros(0, np.float32)):
        assert rms_dbfs(silence) == peak_dbfs(silence) == FLOOR_DBFS


def test_contrast_against_a_loop():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    grey = [(r + g + b) / 3 for r, g, b in pixels.reshape(-1, 3).tolist()]
    mean = sum(grey) / len(grey)
    deviation = (sum((value - mean) ** 2 for value in grey) / len(grey)) ** 0.5
    assert contrast(pixels) == pytest.approx(deviation, rel=1e-5)
