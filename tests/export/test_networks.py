"""Encoder by encoder: the exported network in onnxruntime against PyTorch."""

import copy

import numpy as np
import onnxruntime
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.export import networks
from anymodal.export.parity import random_items
from helpers.exported import TinyAudio, untrained


def prepared(encoder, count, seed=5):
    items = random_items(encoder, count, np.random.default_rng(seed))
    return items, np.concatenate([encoder.prepare(item) for item in items])


# one of each network, but for those of the real classifier (test_real.py); the others differ in
# weights, in depth, in the size of the last pooling, or have no analysis of audio
@pytest.mark.slow
@pytest.mark.parametrize("name", ["openl3_audio_512", "vgg16"])
def test_same_embeddings_in_onnxruntime(name):
    encoder = untrained(name)
    items, rows = prepared(encoder, 5)
    expected = encoder.embed(items)
    model = networks.network(encoder, rows[:3])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,) = session.get_inputs()
    assert given.name == encoder.modality
    assert given.shape == ["n", *rows.shape[1:]]
    for part in (slice(0, 5), slice(0, 1)):
        (got,) = session.run(None, {given.name: rows[part]})
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected[part], atol=2e-5 * np.abs(expected).max())
    # the exporter's traces, such as paths of files on this machine, are removed
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    assert b".py" not in model.SerializeToString()


def test_shorter_types_are_refused():
    encoder = TinyAudio()
    assert networks.obstacle(encoder) is None
    encoder.precision = "bfloat16"
    assert "bfloat16" in str(networks.obstacle(encoder))


def test_the_encoder_itself_is_left_alone():
    encoder = TinyAudio()
    items, _ = prepared(encoder, 2)
    before = encoder.embed(items)
    for parameter in networks._Chain(encoder).parameters():
        parameter.data.zero_()
    np.testing.assert_array_equal(encoder.embed(items), before)


@pytest.mark.slow
def test_a_network_that_pytorch_cannot_export_is_named():
    encoder = copy.copy(TinyAudio())
    _, rows = prepared(encoder, 2)
    # what it computes depends on the values: no graph can say that
    encoder._front = lambda windows: windows if windows.float().sum() > 1 else windows + 1
    with pytest.raises(AnymodalError, match="cannot export the network of tiny_audio .*heads-only"):
        networks.network(encoder, rows)
