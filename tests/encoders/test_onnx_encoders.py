"""Encoder by encoder: the exported network in onnxruntime against PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest

from anymodal.errors import AnymodalError
from anymodal.onnx import networks
from anymodal.onnx.parity import random_items
from anymodal.onnx.preparation import prepared, told_of

# one of each network, but for those of the real classifier (tests/test_onnx_real.py); the others
# differ in weights, in depth, in the size of the last pooling, or have no analysis of sound
NAMES = ("musicnn_vgg_mtt", "openl3_audio_512", pytest.param("vgg16", marks=pytest.mark.slow))
PREPARATIONS = {
    "musicnn_mtt": "windows",
    "musicnn_vgg_mtt": "windows",
    "openl3_audio": "windows",
    "efficientnet_lite0": "central_square",
    "efficientnet_lite2": "central_square",
    "openl3_image": "openl3",
    "vgg16": "fractional_square",
}


def ready(encoder, count, seed=5):
    items = random_items(encoder, count, np.random.default_rng(seed))
    return items, np.concatenate([encoder.prepare(item) for item in items])


@pytest.mark.parametrize("name", NAMES)
def test_same_embeddings_in_onnxruntime(name, built):
    encoder = built(name)
    items, seen = ready(encoder, 5)
    model = networks.network(encoder, seen[:3])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = encoder.embed(items)
    (given,) = session.get_inputs()
    assert given.name == encoder.modality
    assert given.shape == ["n", *seen.shape[1:]]
    for rows in (slice(0, 5), slice(0, 1)):
        (got,) = session.run(None, {given.name: seen[rows]})
        assert got.dtype == np.float32
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got, expected[rows], atol=2e-5 * scale)
    # the exporter's notes, such as paths of files on this machine, are not handed on
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    assert b".py" not in model.SerializeToString()


@pytest.mark.parametrize("name", PREPARATIONS)
def test_preparation_without_a_framework(name, built):
    encoder = built(name)
    assert networks.obstacle(encoder) is None
    told = told_of(encoder)
    assert told is not None and told["kind"] == PREPARATIONS[name]
    rng = np.random.default_rng(8)
    if encoder.modality == "audio":
        items = [rng.uniform(-1, 1, n).astype(np.float32) for n in (7, 30_001, 150_000)]
    else:
        shapes = ((31, 700, 3), (250, 240, 3), (1, 1, 3), (500, 333, 3))
        items = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    for item in items:
        np.testing.assert_array_equal(prepared(item, told), encoder.prepare(item))


def test_a_preparation_of_ones_own_is_told_apart(built):
    encoder = copy.copy(built("efficientnet_lite0"))
    encoder._windows = lambda item: iter([np.zeros((224, 224, 3), np.uint8)])
    assert told_of(encoder) is None


def test_shorter_types_are_refused(built):
    encoder = copy.copy(built("efficientnet_lite0"))
    encoder.precision = "bfloat16"
    assert "bfloat16" in str(networks.obstacle(encoder))


def test_the_encoder_itself_is_left_alone(built):
    encoder = built("openl3_audio_512")
    items, _ = ready(encoder, 2)
    before = encoder.embed(items)
    chain = networks._Chain(encoder)
    for parameter in chain.parameters():
        parameter.data.zero_()
    np.testing.assert_array_equal(encoder.embed(items), before)


def test_a_network_that_pytorch_cannot_export_is_named(built):
    encoder = copy.copy(built("efficientnet_lite0"))
    _, seen = ready(encoder, 2)
    # what it computes depends on the values: no graph can say that
    encoder._front = lambda windows: windows if windows.float().sum() > 1 else windows + 1
    with pytest.raises(
        AnymodalError, match=r"cannot export the network of efficientnet_lite0 .*head"
    ):
        networks.network(encoder, seen)


@pytest.mark.parametrize(
    ("item", "told", "what"),
    [
        (np.zeros((2, 2), np.float32), {"kind": "windows", "samples": 4}, "mono sound"),
        (np.zeros(0, np.float32), {"kind": "windows", "samples": 4}, "is empty"),
        (np.array([np.nan], np.float32), {"kind": "windows", "samples": 4}, "not finite"),
        (np.zeros((4, 4), np.uint8), {"kind": "central_square", "size": 2}, "shape"),
        (np.zeros((4, 4, 3), np.uint8), {"kind": "magic"}, "'magic'"),
    ],
)
def test_items_that_cannot_be_prepared(item, told, what):
    with pytest.raises(AnymodalError, match=what):
        prepared(item, told)
