"""Preparing ahead changes no bit: in this process, or in one that has no network."""

from __future__ import annotations

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError


@pytest.mark.parametrize("name", ["musicnn_mtt", "efficientnet_lite0"])
def test_what_cannot_be_prepared_is_named(name, built):
    with pytest.raises(AnymodalError, match=f"{name}: item must "):
        built(name).prepare(np.zeros((2, 2), dtype=np.int64))


def test_nothing_prepared_is_nothing_embedded(built):
    encoder = built("efficientnet_lite0")
    assert encoder.embed_prepared([]).shape == (0, encoder.dim)
