"""Preparing ahead changes no bit: in this process, or in one that has no network."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import guarantees, registry
from anymodal.encoders.base import PreparingEncoder


@pytest.mark.parametrize("name", registry.names())
def test_embedding_what_was_prepared(name, built):
    encoder = built(name)
    assert isinstance(encoder, PreparingEncoder)
    items = guarantees.items(encoder)[:5]
    if encoder.sample_rate is not None:
        items.append(np.concatenate([items[0], items[1]])[: encoder.sample_rate * 3 // 2])
    expected = encoder.embed(items)
    here = [encoder.prepare(item) for item in items]
    np.testing.assert_array_equal(encoder.embed_prepared(here), expected)
    travelled = pickle.dumps(encoder.preparation())
    assert len(travelled) < 2000
    elsewhere = pickle.loads(travelled)
    for item, prepared in zip(items, here, strict=True):
        again = elsewhere(item)
        assert again.dtype == prepared.dtype
        np.testing.assert_array_equal(again, prepared)


@pytest.mark.parametrize("name", ["musicnn_mtt", "efficientnet_lite0"])
def test_what_cannot_be_prepared_is_named(name, built):
    with pytest.raises(AnymodalError, match=f"{name}: item must "):
        built(name).prepare(np.zeros((2, 2), dtype=np.int64))


def test_nothing_prepared_is_nothing_embedded(built):
    encoder = built("efficientnet_lite0")
    assert encoder.embed_prepared([]).shape == (0, encoder.dim)
