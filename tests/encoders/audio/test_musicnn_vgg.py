"""The port of musicnn's vgg, against the published graph run by TensorFlow (see tests/data)."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.audio import musicnn_vgg
from anymodal.encoders.audio.musicnn_package import from_folder
from anymodal.encoders.audio.musicnn_vgg import FRAMES, VGG, repeated
from anymodal.encoders.weights import locations
from anymodal.media import decoding
from helpers.paths import FIXTURES, SHARED

DATA = SHARED / "data"
sys.path.insert(0, str(DATA))
from helpers.musicnn_signals import LENGTHS, signals  # noqa: E402

NAME = "musicnn_vgg_mtt"


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURES / "musicnn_reference.npz") as arrays:
        yield arrays


@pytest.mark.parametrize("length", LENGTHS)
def test_same_numbers_as_the_published_network(length, built, reference):
    encoder = built(NAME)
    for signal, audio in signals(LENGTHS[length]).items():
        with torch.inference_mode():
            spectra = repeated(encoder.log_mel(torch.from_numpy(audio[None])))
            got = {
                "pooled": encoder.network.pooled(spectra),
                "penultimate": encoder.network.penultimate(spectra),
                "logits": encoder.network(spectra),
            }
        for output, value in got.items():
            expected = reference[f"MTT_vgg/{length}/{signal}/{output}"]
            error = np.abs(value[0].numpy() - expected).max()
            # pooled values reach 80: there 1e-4 is relative
            scale = np.abs(expected).max() if output == "pooled" else 1.0
            assert error < 1e-4 * scale, (signal, output)


def test_an_embedding_is_what_its_second_pools_to(built, reference):
    sounds = signals(16_000)
    got = built(NAME).embed(list(sounds.values()))
    for row, signal in zip(got, sounds, strict=True):
        expected = reference[f"MTT_vgg/1s/{signal}/pooled"]
        np.testing.assert_allclose(row, expected, atol=1e-4 * np.abs(expected).max())


def test_a_second_is_repeated_to_the_length_of_training():
    spectra = torch.arange(2 * 63 * 96, dtype=torch.float32).reshape(2, 63, 96)
    got = repeated(spectra)
    assert got.shape == (2, FRAMES, 96)
    for frame in range(FRAMES):
        assert torch.equal(got[:, frame], spectra[:, frame % 63])
    longer = torch.rand(1, 300, 96)
    assert torch.equal(repeated(longer), longer[:, :FRAMES])
    assert torch.equal(repeated(spectra[:, :1]), spectra[:, :1].expand(2, FRAMES, 96))


def test_pooling_in_plain_numpy(built):
    """Maximum, then mean, of the channels of each block, by hand for one channel of the first."""
    network = built(NAME).network
    spectra = torch.rand(1, FRAMES, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = network.norm_input(spectra[:, None]).numpy()[0, 0]
        got = network.pooled(spectra).numpy()[0]
        last = network.maps(spectra)[-1].numpy()[0]
    channel = 7
    convolution, _, norm = network.layers[0]
    padded = np.pad(x.astype(np.float64), 1)
    values = np.full(x.shape, float(convolution.bias[channel]))
    for row in range(3):
        for column in range(3):
            weight = float(convolution.weight[channel, 0, row, column])
            values += weight * padded[row : row + x.shape[0], column : column + x.shape[1]]
    scale = float(norm.weight[channel] / torch.sqrt(norm.running_var[channel] + 1e-3))
    values = (np.maximum(values, 0) - float(norm.running_mean[channel])) * scale
    values += float(norm.bias[channel])
    assert got[channel] == pytest.approx(values.max(), abs=1e-4)
    assert got[128 + channel] == pytest.approx(values.mean(), abs=1e-4)
    assert last.shape == (128, 11, 6)
    np.testing.assert_allclose(got[1024:1152], last.max(axis=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(got[1152:], last.mean(axis=(1, 2)), atol=1e-4)


def test_checkpoint_of_another_network():
    package = locations.package_dir("musicnn")
    if package is None:
        pytest.skip("package musicnn is not installed")
    with pytest.raises(AnymodalError, match="is not the checkpoint of this network: lacks '1CNN"):
        from_folder(package / "MTT_musicnn", musicnn_vgg.convert)


def test_weights_of_another_shape(tmp_path):
    tensors = {name: t.numpy() for name, t in VGG(tags=10).state_dict().items()}
    tensors = {name: t for name, t in tensors.items() if not name.endswith("tracked")}
    path = tmp_path / "other.safetensors"
    locations.write_weights(path, tensors, NAME, "a test")
    with pytest.raises(AnymodalError, match=rf"weights do not fit {NAME}: .* tags\.bias"):
        registry.get(NAME, weights=path)


def test_real_instruments_get_sensible_tags(built):
    """Guitars are tagged guitar more than cellos are, and cellos strings more than guitars."""
    encoder = built(NAME)
    mean = {}
    for instrument in ("guitar", "cello"):
        paths = sorted(SHARED.glob(f"instruments/audio/{instrument}/philharmonia*.ogg"))[:12]
        if len(paths) < 12:
            pytest.skip(f"no recordings of {instrument} under {SHARED}")
        sounds = [decoding.load_audio(path, encoder.sample_rate) for path in paths]
        batch = np.stack([np.pad(sound, (0, 16_000 - len(sound))) for sound in sounds])
        with torch.inference_mode():
            logits = encoder.network(repeated(encoder.log_mel(torch.from_numpy(batch))))
        mean[instrument] = logits.mean(dim=0).numpy()
    guitar, strings = 0, 4  # MTT_LABELS of the package
    assert mean["guitar"][guitar] > mean["cello"][guitar] + 1
    assert mean["cello"][strings] > mean["guitar"][strings] + 1
