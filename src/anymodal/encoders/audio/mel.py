"""Mel spectra on Slaney's scale, batched in PyTorch: those of `librosa.feature.melspectrogram` with
its defaults (tested to 1e-4 on the logarithmic scale)."""

from __future__ import annotations

import numpy as np
import torch

_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Slaney's scale: linear up to 1 kHz, logarithmic above."""
    hz = np.asarray(hz, dtype=np.float64)
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ_PER_MEL, above)


def mel_to_hz(mel: np.ndarray | float) -> np.ndarray:
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, above)


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Triangles of unit area per band from 0 Hz to Nyquist, float64 (n_mels, n_fft // 2 + 1)."""
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    edges = mel_to_hz(np.linspace(0.0, float(hz_to_mel(sample_rate / 2)), n_mels + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.maximum(triangles, 0.0) * 2.0 / (high - low)


class MelSpectrogram(torch.nn.Module):
    """Power mel spectrogram: float32 (n, samples) → (n, 1 + samples // hop, n_mels).

    Frames are centred on multiples of `hop`, zeros beyond both ends, periodic Hann window.
    """

    bank: torch.Tensor
    window: torch.Tensor

    def __init__(self, sample_rate: int, n_fft: int, hop: int, n_mels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop = hop
        bank = torch.from_numpy(mel_filterbank(sample_rate, n_fft, n_mels).T).float()
        # not persistent: they follow from the arguments and are no weights
        self.register_buffer("bank", bank.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            audio,
            self.n_fft,
            self.hop,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return power.transpose(1, 2) @ self.bank
