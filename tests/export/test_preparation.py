"""Preparation without a framework, against what the encoders themselves do."""

import copy

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.export.preparation import Preparation, preparation_of
from helpers.exported import untrained


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("musicnn_mtt", "windows"),
        ("efficientnet_lite0", "central_square"),
        pytest.param("openl3_audio", "windows", marks=pytest.mark.slow),
        pytest.param("openl3_image", "openl3", marks=pytest.mark.slow),
        pytest.param("vgg16", "fractional_square", marks=pytest.mark.slow),
    ],
)
def test_the_preparation_of_an_encoder(name, kind):
    encoder = untrained(name)
    preparation = preparation_of(encoder)
    assert preparation is not None and preparation.kind == kind
    rng = np.random.default_rng(8)
    if encoder.modality == "audio":
        items = [rng.uniform(-1, 1, n).astype(np.float32) for n in (7, 30_001, 150_000)]
    else:
        shapes = ((31, 700, 3), (250, 240, 3), (1, 1, 3), (500, 333, 3))
        items = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    for item in items:
        np.testing.assert_array_equal(preparation(item), encoder.prepare(item))


def test_another_preparation_is_not_taken_for_one_of_these():
    encoder = copy.copy(untrained("efficientnet_lite0"))
    encoder._windows = lambda item: iter([np.zeros((224, 224, 3), np.uint8)])
    assert preparation_of(encoder) is None


@pytest.mark.parametrize(
    ("item", "kind", "message"),
    [
        (np.zeros(0, np.float32), "windows", "is empty"),
        (np.zeros((4, 4), np.uint8), "central_square", "shape"),
        (np.zeros((4, 4, 3), np.uint8), "magic", "'magic'"),
    ],
)
def test_items_that_cannot_be_prepared(item, kind, message):
    with pytest.raises(AnymodalError, match=message):
        Preparation(kind=kind, size=4)(item)
