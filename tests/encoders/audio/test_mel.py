"""The mel front end against librosa, and against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.encoders.audio.mel import MelSpectrogram, mel_filterbank

librosa = pytest.importorskip("librosa")
MUSICNN = MelSpectrogram(16_000, 512, 256, 96)


def error(audio: np.ndarray) -> float:
    """Largest difference from librosa on the logarithmic scale."""
    expected = librosa.feature.melspectrogram(
        y=audio, sr=16_000, n_fft=512, hop_length=256, n_mels=96, power=2.0
    )
    got = MUSICNN(torch.from_numpy(audio[None])).numpy()[0]
    assert got.shape == (1 + len(audio) // 256, 96)
    return np.abs(np.log10(10_000 * got + 1) - np.log10(10_000 * expected.T + 1)).max()


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels"), [(16_000, 512, 96), (48_000, 2048, 256), (22_050, 1024, 40)]
)
def test_filterbank(rate, n_fft, n_mels):
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, dtype=np.float64)
    np.testing.assert_allclose(mel_filterbank(rate, n_fft, n_mels), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")
@given(
    samples=st.integers(1, 3_000),
    level=st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_log_mel_is_librosas(samples, level, seed):
    audio = level * np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    assert error(audio) < 1e-4


def test_log_mel_of_structured_audio():
    time = np.arange(16_000) / 16_000
    for audio in (
        np.sin(2 * np.pi * 1_000 * time),
        np.sign(np.sin(2 * np.pi * 50 * time)),
        np.where(np.arange(16_000) % 4_000 == 0, 1.0, 0.0),
        np.zeros(16_000),
    ):
        assert error(audio.astype(np.float32)) < 1e-4


def test_plain_loop():
    audio = np.random.default_rng(0).uniform(-1, 1, 700)
    padded = np.concatenate([np.zeros(256), audio, np.zeros(256)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    bank = mel_filterbank(16_000, 512, 96)
    rows = []
    for start in range(0, len(padded) - 511, 256):
        frame = padded[start : start + 512] * window
        power = [
            abs(sum(frame * np.exp(-2j * np.pi * k * np.arange(512) / 512))) ** 2
            for k in range(257)
        ]
        rows.append([sum(weight * power) for weight in bank])
    got = MUSICNN(torch.from_numpy(audio[None]).float()).numpy()[0]
    np.testing.assert_allclose(got, rows, rtol=1e-4, atol=1e-5)
