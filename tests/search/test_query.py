"""From an item to its answers."""

import shutil

import numpy as np
import pytest
from PIL import Image

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media.segmentation import Audio
from anymodal.search import Hit, Index, query_vector, update
from helpers.searching import DIM, RATE, classifier, write_audio, write_image
from helpers.videos import class_video


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media") / "all"
    for number in range(5):
        write_audio(folder / f"{number}.wav", 200 + 300 * number)
        write_image(folder / f"{number}.png", number)
    class_video(folder / "video.mp4", "flute", 1)
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
        assert {hit.path for hit in hits} == {*(f"{n}{least}" for n in range(5)), "video.mp4"}
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
        assert sorted((-hit.cosine, hit.path) for hit in hits) == [
            (-hit.cosine, hit.path) for hit in hits
        ]


def test_a_video_is_searched_by_its_audio_its_image_or_the_mean_of_both(index, model, media):
    (vectors,) = model.embed([media / "video.mp4"])
    means = vectors | {"both": (vectors["audio"] + vectors["image"]) / 2}
    for by, mean in means.items():
        vector = query_vector(model, media / "video.mp4", by)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
        assert len(index.find(model, media / "video.mp4", 50, by=by)) == len(index) == 12
    # both: the same order as by the mean of the two cosines
    two = (index.vectors @ vectors["audio"] + index.vectors @ vectors["image"]) / 2
    rows = index.search(vector[None], 50).rows[0]
    assert (np.diff(two[rows]) <= 2e-6).all()


def test_items_need_not_be_files(index, model, media):
    pixels = np.asarray(Image.open(media / "1.png"))
    assert index.find(model, pixels, 1)[0].path == "1.png"
    assert index.find(model, (media / "4.wav").read_bytes(), 1)[0].path == "4.wav"
    time_s = np.arange(RATE) / RATE
    audio = Audio(0.4 * np.sin(2 * np.pi * 800 * time_s), RATE)
    assert index.find(model, audio, 1)[0].path == "2.wav"


def test_what_cannot_be_searched_for_is_an_error(index, model, media, tmp_path):
    with pytest.raises(AnymodalError, match=r"1.png has no audio to search by, only image"):
        index.find(model, media / "1.png", by="audio")
    with pytest.raises(AnymodalError, match="not by 'smell'"):
        index.find(model, media / "1.png", by="smell")
    with pytest.raises(AnymodalError, match="no modality 'smell'"):
        index.find(model, media / "1.png", modality="smell")
    for queries, k, message in (
        (np.ones((1, DIM)), 0, "k must be 1 or more"),
        (np.ones((1, 5)), 1, rf"of shape \(queries, {DIM}\)"),
        (np.ones(DIM), 1, "must be a matrix"),
        (np.full((1, DIM), np.nan), 1, "not finite"),
    ):
        with pytest.raises(AnymodalError, match=message):
            index.search(queries, k)
    with pytest.raises(MediaError, match="flute: does not exist"):
        index.find(model, "flute")
    shutil.copy(__file__, tmp_path / "query.jpg")
    with pytest.raises(MediaError, match="query.jpg"):
        index.find(model, tmp_path / "query.jpg")
