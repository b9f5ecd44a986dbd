"""What `anymodal.encoders.base` promises of every encoder, in one loop over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from anymodal import encoders
from anymodal.errors import AnymodalError

NAMES = encoders.names()
RNG = np.random.default_rng(0)


def items(encoder) -> list[np.ndarray]:
    """Ordinary and extreme items of the encoder's modality."""
    if encoder.modality == "image":
        ramp = np.linspace(0, 255, 300).astype(np.uint8)
        return [
            RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8),
            np.broadcast_to(ramp[None, :, None], (200, 300, 3)).copy(),
            np.zeros((224, 224, 3), np.uint8),
            np.full((50, 400, 3), 255, np.uint8),
            np.full((1, 1, 3), 77, np.uint8),
            RNG.integers(0, 256, (1, 500, 3), dtype=np.uint8),
        ]
    rate = encoder.sample_rate
    time = np.arange(rate) / rate
    return [
        (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32),
        (0.1 * RNG.standard_normal(rate)).astype(np.float32),
        np.zeros(rate, np.float32),
        np.sign(np.sin(2 * np.pi * 100 * time)).astype(np.float32),
        np.full(1, 0.5, np.float32),
        (0.1 * RNG.standard_normal(rate // 3)).astype(np.float32),
        (0.1 * RNG.standard_normal(rate * 5 // 2)).astype(np.float32),
    ]


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert np.all(np.abs(got - expected) <= 1e-5 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_an_embedding_depends_on_its_item_alone(name, built):
    encoder = built(name)
    batch = items(encoder)
    alone = np.concatenate([encoder.embed([item]) for item in batch])
    assert alone.dtype == np.float32 and alone.shape == (len(batch), encoder.dim)
    assert np.isfinite(alone).all()
    order = RNG.permutation(len(batch))
    # twice over, so that the batch is larger than one pass through the network
    together = encoder.embed([batch[i] for i in (*order, *order)])
    assert_same(together[: len(batch)], alone[order])
    assert_same(together[len(batch) :], alone[order])
    np.testing.assert_array_equal(encoder.embed(batch[:1]), alone[:1])


@pytest.mark.parametrize("name", NAMES)
def test_different_items_differ(name, built):
    encoder = built(name)
    first, second = encoder.embed(items(encoder)[:2])
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_empty_batch(name, built):
    got = built(name).embed([])
    assert got.shape == (0, encoders.info(name).dim) and got.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_items_are_left_as_they_were(name, built):
    encoder = built(name)
    batch = items(encoder)[:2]
    copies = [item.copy() for item in batch]
    for item in batch:
        item.flags.writeable = False
    encoder.embed(batch)
    for item, copy in zip(batch, copies, strict=True):
        np.testing.assert_array_equal(item, copy)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_items_are_named(name, built):
    encoder = built(name)
    good = items(encoder)[0]
    if encoder.modality == "audio":
        wrong = [
            good[:0],
            np.stack([good, good]),
            (good * 32767).astype(np.int16),
            np.array([np.nan], np.float32),
            good.tolist(),
            "song.wav",
        ]
    else:
        wrong = [
            good[:0],
            good[:, :, 0],
            good[:, :, :2],
            good.astype(np.float32) / 255,
            good.tolist(),
            "photo.jpg",
        ]
    for item in wrong:
        with pytest.raises(AnymodalError, match=rf"{name}: item 1 \w+") as caught:
            encoder.embed([good, item])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_version_and_saved_weights(name, built, tmp_path):
    encoder = built(name)
    assert len(encoder.version) == 16 and int(encoder.version, 16) >= 0
    path = tmp_path / "deep" / "weights.safetensors"
    encoder.save_weights(path)
    again = encoders.get(name, device="cpu", weights=path)
    assert again.version == encoder.version
    item = items(encoder)[:1]
    np.testing.assert_array_equal(again.embed(item), encoder.embed(item))
    for other in NAMES:
        if other != name:
            with pytest.raises(AnymodalError, match=f"holds the weights of {name}, not of {other}"):
                encoders.get(other, device="cpu", weights=path)
    with pytest.raises(AnymodalError, match="no weights of"):
        encoders.get(name, weights=tmp_path / "absent.safetensors")


def test_versions_are_pinned(built):
    """They are part of every cached embedding: a change must be meant."""
    expected = {
        "musicnn_mtt": "8264d895210b0add",
        "musicnn_msd": "741ffeee57355226",
        "efficientnet_lite0": "6dff7e613f815a51",
        "efficientnet_lite1": "c4f9c186ccf9dcfa",
        "efficientnet_lite2": "f6f2c260a2444459",
    }
    assert {name: built(name).version for name in NAMES} == expected
