"""The port of musicnn, against the published graphs run by TensorFlow (see tests/data)."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.audio import musicnn
from anymodal.encoders.weights.packaged import wheel_bytes
from anymodal.media import decoding
from helpers.musicnn_signals import LENGTHS, signals
from helpers.paths import FIXTURES, shared

DATA = "data-00000-of-00001"
NETWORKS = {"musicnn_mtt": "MTT_musicnn", "musicnn_msd": "MSD_musicnn"}
MTT_TAGS = ["guitar", "classical", "slow", "techno", "strings", "drums"]


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


@pytest.mark.parametrize("name", NETWORKS)
def test_an_embedding_is_what_its_second_pools_to(name, built):
    with np.load(FIXTURES / "musicnn_reference.npz") as reference:
        for signal, audio in signals(16_000).items():
            expected = reference[f"{NETWORKS[name]}/1s/{signal}/pooled"]
            got = built(name).embed([audio])[0]
            np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_pooling_in_plain_numpy(built):
    """Maximum and mean of every layer, interleaved: the order that the dense weights expect."""
    network = built("musicnn_mtt").network
    spectra = torch.rand(1, 20, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = network.norm_input(spectra[:, None]).numpy()[0, 0]
        got = network.pooled(spectra).numpy()[0]
    padded = np.pad(x, ((3, 3), (0, 0)))
    convolution, _, norm = network.timbral[0]
    channel = 5
    kernel = convolution.weight[channel, 0].numpy()
    scale = norm.weight / torch.sqrt(norm.running_var + 1e-3)
    rows = []
    for time in range(20):
        columns = []
        for band in range(96 - 38 + 1):
            patch = padded[time : time + 7, band : band + 38]
            value = max(0.0, float((patch * kernel).sum() + convolution.bias[channel]))
            value = (value - float(norm.running_mean[channel])) * float(scale[channel])
            columns.append(value + float(norm.bias[channel]))
        rows.append(max(columns))
    assert got[2 * channel] == pytest.approx(max(rows), abs=1e-4)
    assert got[2 * channel + 1] == pytest.approx(np.mean(rows), abs=1e-4)


def test_checkpoint_of_another_network(built):
    with pytest.raises(KeyError):
        musicnn.convert({"conv2d/kernel": np.zeros((7, 38, 1, 204), np.float32)})
    built("musicnn_mtt")  # which may download the wheel
    try:
        content = wheel_bytes(registry.info("musicnn_mtt").package)
    except AnymodalError as error:
        pytest.skip(str(error))
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        files = [wheel.read(f"musicnn/MTT_vgg/.{part}") for part in ("index", DATA)]
    with pytest.raises(AnymodalError, match="not the checkpoint of this network: lacks 'conv2d"):
        musicnn.from_checkpoint(*files)


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


def test_real_instruments_get_sensible_tags(built):
    """Guitars are tagged guitar more than cellos are, and cellos strings more than guitars."""
    encoder = built("musicnn_mtt")
    mean = {}
    for instrument in ("guitar", "cello"):
        paths = shared(f"data/instruments/audio/{instrument}/philharmonia*.ogg")[:12]
        batch = [decoding.load_audio(path, encoder.sample_rate) for path in paths]
        with torch.inference_mode():
            pooled = torch.from_numpy(encoder.embed(batch))
            logits = encoder.network.tags(encoder.network.penultimate(pooled))
        mean[instrument] = dict(zip(MTT_TAGS, logits.mean(dim=0).tolist(), strict=False))
    assert mean["guitar"]["guitar"] > mean["cello"]["guitar"] + 1
    assert mean["cello"]["strings"] > mean["guitar"]["strings"] + 1
