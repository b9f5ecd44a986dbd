"""What `anymodal.encoders.base` promises of every encoder, in one loop over all of them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import guarantees, registry
from anymodal.encoders.base import PreparingEncoder
from anymodal.encoders.weights.tensors import write_weights
from helpers.untrained import FAMILIES, every_encoder

NAMES = registry.names()


@pytest.mark.parametrize("name", every_encoder())
def test_guarantees(name, built):
    encoder, info = built(name), registry.info(name)
    assert isinstance(encoder, PreparingEncoder)
    for field in ("name", "modality", "dim", "sample_rate", "image_size"):
        assert getattr(encoder, field) == getattr(info, field)
    guarantees.check(encoder)
    assert len(pickle.dumps(encoder.preparation())) < 2000, "the network is left behind"
    with pytest.raises(AnymodalError, match=f"{name}: item must "):
        encoder.prepare(np.zeros((2, 2), dtype=np.int64))
    assert encoder.embed_prepared([]).shape == (0, encoder.dim)
    first, second = encoder.embed(guarantees.items(encoder)[:2])
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("name", every_encoder())
def test_version_and_saved_weights(name, built, tmp_path):
    encoder = built(name)
    assert len(encoder.version) == 16 and int(encoder.version, 16) >= 0
    path = tmp_path / "deep" / "weights.safetensors"
    encoder.save_weights(path)
    again = registry.get(name, device="cpu", weights=path)
    assert again.version == encoder.version
    item = guarantees.items(encoder)[:1]
    np.testing.assert_array_equal(again.embed(item), encoder.embed(item))
    # another encoder of the family, which may well have tensors of the same shapes
    family = registry.info(name).module
    for other in (n for n in NAMES if n != name and registry.info(n).module == family):
        with pytest.raises(AnymodalError, match=other):
            registry.get(other, device="cpu", weights=path)
    paths = {word: tmp_path / f"{word}.safetensors" for word in ("absent", "nonsense", "stranger")}
    paths["nonsense"].write_bytes(b"nonsense")
    write_weights(paths["stranger"], {"w": np.zeros(3, np.float32)}, name, "a test")
    for word, path in {**paths, "folder": tmp_path}.items():
        with pytest.raises(AnymodalError) as caught:
            registry.get(name, device="cpu", weights=path)
        message = str(caught.value)
        assert "\n" not in message and (name in message or str(path) in message), word


def test_none_is_left_out():
    """Every family without weights in a package has untrained ones for this loop."""
    for info in map(registry.info, NAMES):
        assert (info.package is None) == bool(info.files) == (info.module in FAMILIES), info.name


def test_versions_are_pinned(built):
    """They are part of every cached embedding: a change must be meant. Weights that are fetched
    from publishers are not here to be tested."""
    expected = {
        "musicnn_mtt": "8264d895210b0add",
        "musicnn_msd": "741ffeee57355226",
        "efficientnet_lite0": "6dff7e613f815a51",
        "efficientnet_lite1": "c4f9c186ccf9dcfa",
        "efficientnet_lite2": "f6f2c260a2444459",
    }
    packaged = [name for name in NAMES if registry.info(name).package is not None]
    assert {name: built(name).version for name in packaged} == expected
