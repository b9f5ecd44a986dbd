"""Pairs against what the module promises: who meets whom, and how often."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.data.pairing import PairSampler


def test_clip_pairs_every_row_with_itself_once():
    pairs = PairSampler([None] * 5, [None] * 5, "clip").epoch(np.random.default_rng(0))
    assert sorted(pairs.audio) == [0, 1, 2, 3, 4]
    assert (pairs.audio == pairs.image).all()
    assert len(set(pairs.code)) == 5
    assert pairs.audio.tolist() != [0, 1, 2, 3, 4]


def test_class_pairs_by_hand():
    # two classes, four pairs: two of each; the one recording of `b` serves twice
    sampler = PairSampler(["a", "a", "b"], ["b", "a", "b", "a"], "class")
    pairs = sampler.epoch(np.random.default_rng(3))
    assert len(sampler) == len(pairs.audio) == 4
    assert sampler.classes == ("a", "b")
    assert sorted(pairs.audio) == [0, 1, 2, 2]
    assert sorted(pairs.image) == [0, 1, 2, 3]
    codes = dict(zip(pairs.image.tolist(), pairs.code.tolist(), strict=True))
    assert codes == {0: 1, 1: 0, 2: 1, 3: 0}


def test_the_same_seed_gives_the_same_pairs():
    audio, image = ["a", "b", "a", "c"], ["c", "b", "a"]
    one, two = (
        PairSampler(rows, image, "class").epoch(np.random.default_rng(1))
        for rows in (audio, pd.Series(audio, index=[9, 8, 7, 6]))
    )
    assert all((x == y).all() for x, y in zip(one, two, strict=True))


@settings(max_examples=30, deadline=None)
@given(
    audio=st.lists(st.sampled_from("abc"), max_size=25),
    image=st.lists(st.sampled_from("abc"), max_size=25),
    seed=st.integers(0, 1000),
)
def test_pairs_share_their_class_and_use_rows_evenly(audio, image, seed):
    audio, image = audio + list("abc"), image + list("abc")
    sampler = PairSampler(audio, image, "class")
    pairs = sampler.epoch(np.random.default_rng(seed))
    assert len(pairs.code) == max(len(audio), len(image))
    assert all(array.dtype == np.int64 for array in pairs)
    for a, i, code in zip(*pairs, strict=True):
        assert audio[a] == image[i] == sampler.classes[code]
    sizes = np.bincount(pairs.code, minlength=3)
    assert sizes.max() - sizes.min() <= 1
    for rows, classes in ((pairs.audio, audio), (pairs.image, image)):
        uses = np.bincount(rows, minlength=len(classes))
        for name in "abc":
            mine = uses[np.array(classes) == name]
            assert mine.max() - mine.min() <= 1


@pytest.mark.parametrize(
    ("audio", "image", "pairing", "message"),
    [
        ([], ["a"], "class", "no audio"),
        (["a"], [], "class", "no images"),
        ([], [], "clip", "no audio"),
        (["a", "b"], ["a"], "clip", "2 audio and 1 images"),
        (["cello", "flute"], ["flute"], "class", "'cello' has no image"),
        (["flute"], ["flute", "organ"], "class", "'organ' has no audio"),
        (["a", None], ["a", "a"], "class", "some have none"),
        (["a"], ["a"], "label", "not 'label'"),
    ],
)
def test_bad_input(audio, image, pairing, message):
    with pytest.raises(AnymodalError, match=message):
        PairSampler(audio, image, pairing)
