"""Cutting of audio and validation of items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.encoders.windows import audio_windows, rgb_image


@given(length=st.integers(1, 60), samples=st.integers(1, 20))
@settings(deadline=None)
def test_every_sample_is_seen_and_nothing_else(length, samples):
    audio = np.arange(1, length + 1, dtype=np.float64)
    got = list(audio_windows(audio, samples))
    assert len(got) == -(-length // samples)
    assert all(window.shape == (samples,) and window.dtype == np.float32 for window in got)
    seen = set(np.concatenate(got).tolist())
    assert seen - {0.0} == set(audio.tolist())
    assert (0.0 in seen) == (length < samples)
    assert got[-1][min(length, samples) - 1] == length
    assert all(window[0] == 1 + i * samples for i, window in enumerate(got[:-1]))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros((2, 9), np.float32), "mono"),
        (np.zeros(9, np.int16), "floats"),
        ([0.0], "array"),
        (np.zeros(0, np.float32), "is empty"),
        (np.array([np.nan], np.float32), "not finite"),
        (np.array([np.inf], np.float32), "not finite"),
    ],
)
def test_what_is_no_audio(item, message):
    with pytest.raises(AnymodalError, match=message):
        list(audio_windows(item, 4))


def test_images():
    item = np.zeros((1, 2, 3), np.uint8)
    assert rgb_image(item) is item
    for wrong in (item[:0], item[0], item[..., :2], np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(AnymodalError, match=r"must have the shape \(height, width, 3\), not"):
            rgb_image(wrong)
    for wrong in (item.tolist(), item.astype(np.float32), "photo.jpg"):
        with pytest.raises(AnymodalError, match="must be an image: an array of uint8"):
            rgb_image(wrong)
