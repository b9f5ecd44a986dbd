"""The port of OpenL3, against the publisher's package run by TensorFlow (see tests/data)."""

from __future__ import annotations

import gzip
import sys
from functools import cache

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anymodal.core.errors import AnymodalError
from anymodal.encoders import openl3, registry
from anymodal.encoders.openl3 import network_input
from anymodal.encoders.openl3_network import DecibelMel, OpenL3Network
from anymodal.encoders.torch_encoder import load_tensors, tensors_of
from anymodal.encoders.weights import locations
from anymodal.encoders.weights.tensors import fingerprint
from helpers.openl3_items import images, waveforms
from helpers.paths import FIXTURES
from helpers.untrained_openl3 import layers, write_h5, write_untrained

NAMES = ("openl3_audio", "openl3_image")
SLOW = [pytest.param(f"{name}_512", marks=pytest.mark.slow) for name in NAMES]
MEL = DecibelMel(48_000)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openl3")
    return {name: write_untrained(name, folder) for name in NAMES}


@pytest.fixture(scope="module")
def build(files):
    return cache(lambda name: registry.get(name, "cpu", files[name.removesuffix("_512")]))


@pytest.mark.parametrize("name", [*NAMES, *SLOW])
def test_same_numbers_as_the_publishers_package(name, build):
    encoder = build(name)
    counted = sum(tensor.size for tensor in tensors_of(encoder.network).values())
    assert counted == registry.info(name).parameters
    items = waveforms() if encoder.modality == "audio" else images()
    got = encoder.embed(list(items.values()))
    with np.load(FIXTURES / "openl3_reference.npz") as reference:
        for item, row in zip(items, got, strict=True):
            expected = reference[f"{encoder.modality}/{encoder.dim}/{item}"]
            assert expected.std() > 1
            np.testing.assert_allclose(row, expected, rtol=0, atol=1e-4, err_msg=item)


@pytest.mark.parametrize("swapped", [(), (1,)])
def test_folding_changes_nothing(swapped):
    channels = 3 if swapped else 1
    network = OpenL3Network(channels, (4, 4), swapped)
    tensors = openl3.convert([tensors for _, tensors in layers("image" if swapped else "audio")])
    load_tensors(network, tensors, "a test")
    x = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.eval()(x)
        before = tensors_of(network)
        torch.testing.assert_close(network.folded()(x), expected, rtol=1e-4, atol=1e-4)
    after = tensors_of(network)
    assert all((before[name] == after[name]).all() for name in before)


def librosa_decibels(sound: np.ndarray) -> np.ndarray:
    """(256, frames) by librosa, from the publisher's description of the front end."""
    librosa = pytest.importorskip("librosa")
    frames = -(-len(sound) // 242)
    padded = np.pad(sound.astype(np.float64), (0, (frames - 1) * 242 + 2048 - len(sound)))
    magnitude = np.abs(librosa.stft(padded, n_fft=2048, hop_length=242, center=False))
    mel = librosa.filters.mel(sr=48_000, n_fft=2048, n_mels=256, dtype=np.float64) @ magnitude
    decibels = 10 * np.log10(np.maximum(mel, 1e-10))
    return np.maximum(decibels - decibels.max(), -80)


@given(
    samples=st.integers(1, 6_000),
    level=st.sampled_from([1e-9, 1e-6, 1e-3, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_decibels_are_librosas(samples, level, seed):
    sound = level * np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    got = MEL(torch.from_numpy(sound[None])).numpy()[0]
    np.testing.assert_allclose(got, librosa_decibels(sound), atol=1e-4)


def test_decibels_of_structured_waveforms():
    seconds = np.arange(48_000) / 48_000
    tone = (0.9 * np.sin(2 * np.pi * 1_000 * seconds)).astype(np.float32)
    clicks = np.where(np.arange(48_000) % 12_000 == 0, 1, 0).astype(np.float32)
    for sound in (tone, clicks, *waveforms().values()):
        got = MEL(torch.from_numpy(sound[None])).numpy()[0]
        assert got.shape == (256, 199) and got.max() == 0 and got.min() >= -80
        np.testing.assert_allclose(got, librosa_decibels(sound), atol=1e-4)
    assert (MEL(torch.zeros(1, 48_000)) == 0).all()
    # float32, for devices without float64: a dB between the partials, where there is only noise
    note = torch.from_numpy(waveforms()["note"][None])
    torch.testing.assert_close(
        DecibelMel(48_000, precise=False)(note), MEL(note), atol=0.01, rtol=0
    )


def zoomed(item: np.ndarray) -> np.ndarray:
    """The whole image resized to a short side of 256, as scikit-image does it: 0…1."""
    old = item.shape[:2]
    zoom = [round(256 / min(old) * side) / side for side in old]
    options = {"order": 1, "mode": "nearest", "grid_mode": True, "prefilter": False}
    return ndimage.zoom(item / 255, [*zoom, 1], **options)


def central(item: np.ndarray) -> np.ndarray:
    top, left = item.shape[0] // 2 - 112, item.shape[1] // 2 - 112
    return item[top : top + 224, left : left + 224]


SIDES = st.integers(60, 450) | st.sampled_from([223, 224, 225, 255, 256, 257])


@given(height=SIDES, width=SIDES, seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_images_of_any_size(height, width, seed):
    item = np.random.default_rng(seed).integers(0, 250, (height, width, 3), dtype=np.uint8)
    got = network_input(item)
    assert got.shape == (224, 224, 3) and got.dtype == np.float32
    if (height, width) == (224, 224):
        expected = item / 127.5 - 1
    elif 224 <= min(height, width) <= 256:
        expected = central(item) / central(item).max()
    else:
        expected = central(zoomed(item))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_thread_of_a_picture():
    """Enlarged to 256 × 5,120,000 pixels, of which 224 × 224 are computed."""
    thread = np.zeros((1, 20_000, 3), np.uint8)
    thread[:, 10_000:] = 255
    got = network_input(thread)
    # from the centre of one pixel to that of the next the 256 steps of the enlargement are even
    expected = np.broadcast_to(((np.arange(224) + 16.5) / 256)[None, :, None], got.shape)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(network_input(thread.transpose(1, 0, 2)), got.transpose(1, 0, 2))


def test_file_that_keras_itself_wrote():
    """Keras fills each tensor with its number: the order within files is the network's."""
    got = openl3.read(FIXTURES / "openl3_keras.h5.gz")
    network = OpenL3Network(1, (8, 8))
    load_tensors(network, got, "a test")
    fields = []
    for name in ["norm_input", *(f"layers.{i}.{k}" for i in range(7) for k in ("conv", "norm"))]:
        statistics = ("running_mean", "running_var") if "norm" in name else ()
        fields += [f"{name}.{kind}" for kind in ("weight", "bias", *statistics)]
    fields += ["embedding.weight", "embedding.bias"]
    # Keras puts statistics where the layer is, so the numbers simply run on
    assert {name: float(got[name].max()) for name in got} == {
        name: float(i) for i, name in enumerate(fields)
    }
    assert all(tensor.min() == tensor.max() for tensor in got.values())


@pytest.mark.slow
def test_whole_model_and_layers_that_do_not_matter(tmp_path, files):
    expected = openl3.read(files["openl3_audio"])
    whole, old = tmp_path / "whole.h5", tmp_path / "old.h5"
    with h5py.File(files["openl3_audio"]) as source, h5py.File(whole, "w") as target:
        target.create_group("model_weights")
        for name in source:
            source.copy(name, target["model_weights"])
        target["model_weights"].attrs.update(source.attrs)
    spectrogram = {"real_kernels": np.zeros((4, 4)), "freq2mel": np.zeros((2, 4))}
    write_h5(old, [("melspectrogram_1", spectrogram), *layers("audio")])
    for path in (whole, old):
        got = openl3.read(path)
        assert fingerprint(got) == fingerprint(expected)


@pytest.mark.slow
def test_where_weights_are_found(tmp_path, files, monkeypatch, build):
    """In the installed package, which is not imported; before it in the user's folder."""
    brought, package = tmp_path / "brought", tmp_path / "site" / "openl3"
    brought.mkdir()
    package.mkdir(parents=True)
    # importing it would be a mistake: it needs TensorFlow
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(locations.WEIGHTS_VARIABLE, raising=False)
    with pytest.raises(AnymodalError, match=r"openl3_image_mel256_music\.h5.*github\.com"):
        registry.get("openl3_image", "cpu")
    path, version = files["openl3_image"], build("openl3_image_512").version
    other = layers("image")
    other[0][1]["gamma"] += 1
    write_h5(package / path.name, other)
    monkeypatch.syspath_prepend(str(package.parent))
    assert registry.get("openl3_image_512", "cpu").version != version
    monkeypatch.setenv(locations.WEIGHTS_VARIABLE, str(brought))
    (brought / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    assert registry.get("openl3_image_512", "cpu").version == version
    assert "openl3" not in sys.modules


@pytest.mark.slow
def test_files_that_are_something_else(tmp_path, files):
    whole = files["openl3_audio"].read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.h5.gz").write_bytes(gzip.compress(whole, 1)[:-1000])
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name in ("cut.h5", "cut.h5.gz", "empty.h5"):
        with pytest.raises(AnymodalError, match=f"{name} is not a whole .h5") as caught:
            registry.get("openl3_audio", "cpu", tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(AnymodalError, match="no weights of openl3_audio at"):
        registry.get("openl3_audio", "cpu", tmp_path / "absent.h5")


@pytest.mark.slow
def test_weights_of_another_network(tmp_path, files):
    for name, other in (("openl3_audio", "openl3_image"), ("openl3_image", "openl3_audio")):
        with pytest.raises(AnymodalError, match=rf"do not fit {name}: .*first layers\.0\.conv"):
            registry.get(name, "cpu", files[other])
    found = layers("audio")
    swapped = [found[1], found[0], *found[2:]]
    flat = [(name, {k: v.reshape(-1) for k, v in tensors.items()}) for name, tensors in found]
    for wrong, message in (
        (found[:-1], "15 layers with weights, not 16"),
        (swapped, "where norm_input should be, it has bias, kernel"),
        (flat, r"kernel of layers\.0\.conv has the shape \(576,\)"),
    ):
        write_h5(tmp_path / "wrong.h5", wrong)
        with pytest.raises(AnymodalError, match=f"other weights than OpenL3's: .*{message}"):
            registry.get("openl3_audio", "cpu", tmp_path / "wrong.h5")
