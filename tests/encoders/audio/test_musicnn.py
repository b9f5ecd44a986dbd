"""The port of musicnn, against the published graphs run by TensorFlow (see tests/data)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.audio import musicnn
from helpers.musicnn_signals import LENGTHS, signals
from helpers.paths import FIXTURES

NETWORKS = {"musicnn_mtt": "MTT_musicnn", "musicnn_msd": "MSD_musicnn"}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", NETWORKS)
def test_same_numbers_as_the_published_network(name, length, built):
    encoder = built(name)
    with np.load(FIXTURES / "musicnn_reference.npz") as reference:
        for signal, audio in signals(LENGTHS[length]).items():
            with torch.inference_mode():
                spectra = encoder.log_mel(torch.from_numpy(audio[None]))
                assert spectra.shape[1] == {"1s": 63, "3s": 187}[length]
                pooled = encoder.network.pooled(spectra)
                penultimate = encoder.network.penultimate(pooled)
                got = {
                    "pooled": pooled,
                    "penultimate": penultimate,
                    "logits": encoder.network.tags(penultimate),
                }
            for output, value in got.items():
                expected = reference[f"{NETWORKS[name]}/{length}/{signal}/{output}"]
                error = np.abs(value[0].numpy() - expected).max()
                # pooled values reach 130: there 1e-4 is relative
                scale = np.abs(expected).max() if output == "pooled" else 1.0
                assert error < 1e-4 * scale, (signal, output)
                if (output, length) == ("pooled", "1s"):
                    got_embedding = encoder.embed([audio])[0]
                    np.testing.assert_allclose(got_embedding, expected, atol=1e-4 * scale)


def test_checkpoint_of_another_network(monkeypatch):
    monkeypatch.setattr(musicnn, "read_checkpoint", lambda *_: {})
    with pytest.raises(AnymodalError, match="not the checkpoint of this network: lacks 'conv2d"):
        musicnn.from_checkpoint(b"", b"")


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_of_the_registry(name, built):
    """Those that the optimiser changed, of the layers that the embedding needs."""
    after = ("norm_pooled", "dense", "norm_dense", "tags")
    counted = sum(
        parameter.numel()
        for part, parameter in built(name).network.named_parameters()
        if not part.startswith(after)
    )
    assert registry.info(name).parameters == counted
