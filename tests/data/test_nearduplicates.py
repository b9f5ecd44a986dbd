"""Near-duplicates: real alterations of generated photographs, and the exact search."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from anymodal.data import nearduplicates
from anymodal.data.nearduplicates import Fingerprint, components, fingerprint, near_duplicates


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """An image with large shapes, as photographs have, that differs from seed to seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=quality)
    return Image.open(memory).convert("RGB")


ALTERED = {
    "smaller": lambda image: image.resize((80, 60)),
    "stretched": lambda image: image.resize((120, 120)),
    "recompressed": lambda image: recompressed(image, 30),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("alteration", ALTERED)
def test_altered_copies_are_found(alteration):
    images = [scene(seed) for seed in range(8)]
    copies = [ALTERED[alteration](image) for image in images]
    edges = near_duplicates([fingerprint(np.asarray(image)) for image in images + copies])
    assert sorted(map(tuple, edges.tolist())) == [(number, number + 8) for number in range(8)]


def test_chain_is_one_set_and_others_stay_apart():
    first = scene(1)
    images = (first, scene(2), first.resize((50, 40)), recompressed(first, 20), scene(3))
    prints = [fingerprint(np.asarray(image)) for image in images]
    labels = components(near_duplicates(prints), len(prints))
    assert labels[0] == labels[2] == labels[3]
    assert len({labels[0], labels[1], labels[4]}) == 3


def test_nothing_one_tiny_and_plain_images():
    assert near_duplicates([]).shape == (0, 2)
    assert near_duplicates([fingerprint(np.asarray(scene(0)))]).shape == (0, 2)
    assert components(np.empty((0, 2), dtype=int), 0).tolist() == []
    tiny = fingerprint(np.zeros((1, 1, 3), dtype=np.uint8))
    assert tiny.bits.shape == (2, 64) and tiny.thumbnail.shape == (32, 32)
    grey = [fingerprint(np.full((50, 50, 3), shade, dtype=np.uint8)) for shade in (0, 0, 255, 255)]
    assert near_duplicates(grey).shape == (0, 2)


def slow_pairs(prints, distance, correlation):
    thumbnails = [print_.thumbnail.astype(np.float64) for print_ in prints]
    pairs = []
    for one in range(len(prints)):
        for two in range(one + 1, len(prints)):
            for which, other in ((0, thumbnails[two]), (1, thumbnails[two][:, ::-1])):
                apart = (prints[one].bits[0] != prints[two].bits[which]).sum()
                alike = np.corrcoef(thumbnails[one].ravel(), other.ravel())[0, 1]
                if apart <= distance and alike >= correlation:
                    pairs.append((one, two))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@pytest.mark.parametrize("block", [5, 256])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), distance=st.integers(0, 9))
def test_search_finds_what_comparing_all_pairs_finds(block, seed, distance):
    rng = np.random.default_rng(seed)
    centres = rng.random((4, 2, 64)) < 0.5
    textures = rng.integers(0, 256, (4, 32, 32))
    prints = []
    for _ in range(20):
        kind = rng.integers(4)
        flips = rng.random((2, 64)) < rng.choice([0, 0.03, 0.08])
        noise = rng.integers(-40, 41, (32, 32)) * rng.choice([0, 1, 4])
        shade = np.clip(textures[kind] + noise, 0, 255).astype(np.uint8)
        prints.append(Fingerprint(centres[kind] ^ flips, shade))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearduplicates, "_BLOCK", block)
        fast = near_duplicates(prints, distance, 0.9)
    one, two = (components(e, len(prints)) for e in (slow_pairs(prints, distance, 0.9), fast))
    assert ((one[:, None] == one) == (two[:, None] == two)).all()
