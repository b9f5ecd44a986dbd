"""Synthetic audio and images that show no instrument."""

import numpy as np
import pytest

from anymodal.classifier.synthetic_ood import SIDE, kinds, noise, speech, texture
from anymodal.media.segmentation import is_blank

RATE = 16_000


def many(make, count):
    rng = np.random.default_rng(0)
    return [make(rng) for _ in range(count)]


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_every_kind_is_what_encoders_take(rate):
    for name, (modality, make) in kinds(rate).items():
        for item in many(make, 12):
            if modality == "audio":
                assert item.shape == (rate,) and item.dtype == np.float32, name
                assert np.isfinite(item).all() and np.abs(item).max() <= 1
            else:
                assert item.shape == (SIDE, SIDE, 3) and item.dtype == np.uint8, name
        first, same, other = (make(np.random.default_rng(seed)) for seed in (4, 4, 5))
        assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_noise_has_several_spectra():
    items = many(lambda rng: noise(RATE, rng), 60)
    silent = [is_blank(item) for item in items]
    assert 0 < sum(silent) < len(items) / 2

    def slope(item):
        power = np.abs(np.fft.rfft(item))[10:4000] ** 2
        return np.polyfit(np.log(np.arange(10, 4000)), np.log(power + 1e-12), 1)[0]

    slopes = np.array([slope(i) for i, quiet in zip(items, silent, strict=True) if not quiet])
    # white noise and clicks are flat, pink falls by 3 dB per octave, brown by 6
    for expected in (0.0, -1.0, -2.0):
        assert (np.abs(slopes - expected) < 0.3).sum() >= 5


def test_speech_has_a_voice_below_its_formants_and_pauses():
    items = many(lambda rng: speech(RATE, rng), 40)
    assert not any(is_blank(item) for item in items)
    power = [np.abs(np.fft.rfft(item)) ** 2 for item in items]
    assert np.mean([p[:4000].sum() / p.sum() for p in power]) > 0.8
    levels = [np.abs(part).max() for item in items for part in np.array_split(item, 8)]
    assert 0.03 < np.mean(np.array(levels) == 0) < 0.3


def test_textures_differ():
    items = many(texture, 40)
    blank = sum(is_blank(item) for item in items)
    assert 0 < blank < len(items) / 2, "plain colours are blank, and nothing else"
    assert len({item.tobytes() for item in items}) == len(items)
