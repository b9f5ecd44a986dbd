"""Near-duplicates: real alterations of generated photographs, and the exact search."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from anymodal.dataset import nearduplicates
from anymodal.dataset.nearduplicates import (
    Fingerprint,
    components,
    fingerprint,
    near_duplicates,
)


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with large shapes, as photographs have, that differs from seed to seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def recompressed(picture: Image.Image, quality: int) -> Image.Image:
    memory = io.BytesIO()
    picture.save(memory, "JPEG", quality=quality)
    return Image.open(memory).convert("RGB")


ALTERED = {
    "smaller": lambda picture: picture.resize((80, 60)),
    "stretched": lambda picture: picture.resize((120, 120)),
    "recompressed": lambda picture: recompressed(picture, 30),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("alteration", ALTERED)
def test_altered_copies_are_found(alteration):
    pictures = [scene(seed) for seed in range(20)]
    copies = [ALTERED[alteration](picture) for picture in pictures]
    prints = [fingerprint(np.asarray(each)) for each in pictures + copies]
    edges = near_duplicates(prints)
    assert sorted(map(tuple, edges.tolist())) == [(each, each + 20) for each in range(20)]


def test_chain_is_one_set_and_others_stay_apart():
    first = scene(1)
    prints = [
        fingerprint(np.asarray(each))
        for each in (first, scene(2), first.resize((50, 40)), recompressed(first, 20), scene(3))
    ]
    labels = components(near_duplicates(prints), len(prints))
    assert labels[0] == labels[2] == labels[3]
    assert len({labels[0], labels[1], labels[4]}) == 3


def test_pictures_of_one_grey_are_never_linked():
    flat = [fingerprint(np.full((50, 50, 3), shade, dtype=np.uint8)) for shade in (0, 0, 255, 255)]
    assert near_duplicates(flat).shape == (0, 2)


def test_nothing_and_one():
    assert near_duplicates([]).shape == (0, 2)
    assert near_duplicates([fingerprint(np.asarray(scene(0)))]).shape == (0, 2)
    assert components(np.empty((0, 2), dtype=int), 0).tolist() == []


def test_tiny_pictures_have_a_fingerprint():
    print_ = fingerprint(np.zeros((1, 1, 3), dtype=np.uint8))
    assert print_.bits.shape == (2, 64) and print_.thumbnail.shape == (32, 32)


def _all_pairs(prints, distance, correlation):
    thumbs = [each.thumbnail.astype(np.float64) for each in prints]
    found = []
    for one in range(len(prints)):
        for two in range(one + 1, len(prints)):
            for which, other in ((0, thumbs[two]), (1, thumbs[two][:, ::-1])):
                apart = (prints[one].bits[0] != prints[two].bits[which]).sum()
                alike = np.corrcoef(thumbs[one].ravel(), other.ravel())[0, 1]
                if apart <= distance and alike >= correlation:
                    found.append((one, two))
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), distance=st.integers(0, 9))
def test_search_finds_what_comparing_all_pairs_finds(seed, distance):
    rng = np.random.default_rng(seed)
    centres = rng.random((4, 2, 64)) < 0.5
    textures = rng.integers(0, 256, (4, 32, 32))
    prints = []
    for _ in range(24):
        kind = rng.integers(4)
        flips = rng.random((2, 64)) < rng.choice([0, 0.03, 0.08])
        noise = rng.integers(-40, 41, (32, 32)) * rng.choice([0, 1, 4])
        shade = np.clip(textures[kind] + noise, 0, 255).astype(np.uint8)
        prints.append(Fingerprint(centres[kind] ^ flips, shade))
    slow = np.array(_all_pairs(prints, distance, 0.9), dtype=np.int64).reshape(-1, 2)
    fast = near_duplicates(prints, distance, 0.9)
    one, two = (components(edges, len(prints)) for edges in (slow, fast))
    assert ((one[:, None] == one) == (two[:, None] == two)).all()


def test_many_copies_of_one_picture_are_not_compared_pair_by_pair(monkeypatch):
    compared = []

    def counting(one, two, rows, columns):
        compared.append(len(rows))
        return correlations(one, two, rows, columns)

    correlations = nearduplicates._correlations
    monkeypatch.setattr(nearduplicates, "_correlations", counting)
    one = fingerprint(np.asarray(scene(5)))
    edges = near_duplicates([one] * 1500)
    assert len(edges) == 1499
    # all pairs would be a million
    assert sum(compared) < 15_000
