"""From an item to its answers."""

import shutil

import numpy as np
import pytest
from PIL import Image

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media.segmentation import Audio
from anymodal.search import Hit, Index, query_vector, update
from helpers.searching import RATE, classifier, write_picture, write_sound
from helpers.videos import class_video


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media") / "all"
    for number in range(5):
        write_sound(folder / f"{number}.wav", 200 + 300 * number)
        write_picture(folder / f"{number}.png", number)
    class_video(folder / "film.mp4", "flute", 1)
    return folder


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def index(media, model):
    update(media, media.parent / "index", model)
    return Index.open(media.parent / "index")


def test_a_file_of_the_collection_finds_itself_first(index, model, media):
    for name in ("3.wav", "2.png"):
        first = index.find(model, media / name, 1)
        kind = "audio" if name.endswith("wav") else "image"
        assert first == [Hit(1, 1.0, name, kind, kind, 1.0 if kind == "audio" else 0.0)]


def test_answers_of_one_modality(index, model, media):
    for modality, least in (("audio", ".wav"), ("image", ".png")):
        hits = index.find(model, media / "2.png", 50, modality)
        assert len(hits) == 6 and {hit.modality for hit in hits} == {modality}
        assert {hit.path for hit in hits} == {*(f"{n}{least}" for n in range(5)), "film.mp4"}
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
        assert sorted((-hit.cosine, hit.path) for hit in hits) == [
            (-hit.cosine, hit.path) for hit in hits
        ]


def test_a_film_is_searched_by_its_sound_its_picture_or_the_mean_of_both(index, model, media):
    (vectors,) = model.embed([media / "film.mp4"])
    for by, mean in (
        ("audio", vectors["audio"]),
        ("image", vectors["image"]),
        ("both", (vectors["audio"] + vectors["image"]) / 2),
    ):
        merged = (index.vectors @ mean) if by == "both" else None
        vector = query_vector(model, media / "film.mp4", by)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
        hits = index.find(model, media / "film.mp4", 50, by=by)
        assert len(hits) == len(index) == 12
        if merged is not None:
            # the same order as by the mean of the two cosines
            two = (index.vectors @ vectors["audio"] + index.vectors @ vectors["image"]) / 2
            rows = index.search(vector[None], 50).rows[0]
            assert (np.diff(two[rows]) <= 1e-6).all()
            np.testing.assert_allclose(merged, two, atol=1e-6)


def test_items_need_not_be_files(index, model, media):
    picture = np.asarray(Image.open(media / "1.png"))
    assert index.find(model, picture, 1)[0].path == "1.png"
    assert index.find(model, (media / "4.wav").read_bytes(), 1)[0].path == "4.wav"
    time_s = np.arange(RATE) / RATE
    sound = Audio(0.4 * np.sin(2 * np.pi * 800 * time_s), RATE)
    assert index.find(model, sound, 1)[0].path == "2.wav"


def test_what_cannot_be_searched_for_is_told_in_one_line(index, model, media, tmp_path):
    with pytest.raises(AnymodalError, match=r"1.png has no audio to search by, only image"):
        index.find(model, media / "1.png", by="audio")
    with pytest.raises(AnymodalError, match="not by 'smell'"):
        index.find(model, media / "1.png", by="smell")
    with pytest.raises(AnymodalError, match="no modality 'smell'"):
        index.find(model, media / "1.png", modality="smell")
    with pytest.raises(MediaError, match="flute: does not exist"):
        index.find(model, "flute")
    shutil.copy(__file__, tmp_path / "query.jpg")
    with pytest.raises(MediaError, match="query.jpg"):
        index.find(model, tmp_path / "query.jpg")
