"""From items to predictions, end to end on a small classifier."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anymodal.classifier.base import parts_of, segmented
from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media.segmentation import Audio, SegmentedItem, Window, segment
from helpers.encoded import encoded_video
from helpers.small import CLASSES, RATE, audio, calibrated, image

LOUD = np.ones(8, np.float32)
SEEN = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)


@pytest.fixture(scope="module")
def classifier():
    return calibrated()[0]


def test_parts_and_places_of_many_items():
    items = [
        SegmentedItem("s", "audio", 2, (Window(0, 1, LOUD), Window(1, 1, 2 * LOUD))),
        SegmentedItem("p", "image", 0, (Window(0, 0, None, SEEN),)),
        SegmentedItem("f", "video", 2, (Window(0, 1, None, SEEN), Window(1, 1, 3 * LOUD, SEEN))),
    ]
    parts, numbers, ends = parts_of(items, "audio")
    assert [part[0] for part in parts] == [1, 2, 3]
    assert (numbers.tolist(), ends.tolist()) == ([0, 1, 1], [2, 2])
    _, numbers, ends = parts_of(items, "image")
    assert [rows.tolist() for rows in np.split(numbers, ends)] == [[], [0], [0, 1]]
    assert parts_of([], "image")[0] == []


def test_items_of_both_modalities_are_classified_in_order(classifier):
    items, expected = [], []
    for name in CLASSES:
        items += [(audio(name, 2.0, seed=7), RATE), image(name, 7)]
        expected += [name] * 2
    predictions = classifier.predict(items)
    assert [prediction.answer for prediction in predictions] == expected
    assert [prediction.modality for prediction in predictions] == ["audio", "image"] * 3
    table = classifier.predict_proba(items)
    assert table.shape == (6, 3) and np.allclose(table.sum(axis=1), 1)
    assert [classifier.classes_[n] for n in table.argmax(axis=1)] == expected
    assert classifier.predict([]) == [] and classifier.predict_proba([]).shape == (0, 3)


def test_items_unlike_the_training_rows_are_unknown(classifier):
    noise = (0.3 * np.random.default_rng(0).standard_normal(2 * RATE), RATE)
    stripes = np.zeros((24, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    silence = (np.zeros(RATE), RATE)
    predictions = classifier.predict([noise, stripes, silence, np.full((9, 9, 3), 99, np.uint8)])
    assert [prediction.answer for prediction in predictions] == ["unknown"] * 4
    assert predictions[0].novelty["audio"] > 1


def test_noise_and_silence_around_an_instrument_do_not_count(classifier):
    noise = 0.3 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    horn = audio("horn", 1.0, seed=5)
    wave = np.concatenate([horn, noise, horn, np.zeros(2 * RATE, np.float32)])
    (prediction,) = classifier.predict([(wave, RATE)])
    assert [window.known for window in prediction.windows] == [True, False, True, False, False]
    assert prediction.answer == "horn" and prediction.known
    (mostly_noise,) = classifier.predict([(np.concatenate([horn, noise, noise, noise]), RATE)])
    assert mostly_noise.answer == "unknown" and mostly_noise.top(1)[0][0] == "horn"


def test_a_prediction_does_not_depend_on_the_other_items(classifier):
    items = [(audio("bell", 3.0), RATE), image("horn"), (audio("drone"), RATE)]
    for item, together in zip(items, classifier.predict(items), strict=True):
        alone = classifier.predict([item])[0]
        assert np.allclose(alone.probabilities, together.probabilities)
        assert (alone.known, alone.novelty) == (together.known, pytest.approx(together.novelty))


def test_a_video_is_classified_by_both_modalities(classifier):
    video = encoded_video("mp4", "mpeg4", ("aac", audio("drone", 2.0), RATE), 20)
    (prediction,) = classifier.predict([video])
    # its frames are grey, which is no colour of a class
    assert (prediction.answer, prediction.modality) == ("drone", "audio")
    assert set(prediction.novelty) == {"audio", "image"}
    item = segment(video, RATE)
    (again,), (vectors,) = classifier.predict_and_embed([item])
    assert np.array_equal(again.probabilities, prediction.probabilities)
    (expected,) = classifier.embed_windows([item])
    for modality in ("audio", "image"):
        assert np.array_equal(vectors[modality], expected[modality])


def test_joint_vectors_are_means_over_windows(classifier):
    wave = audio("bell", 2.0)
    vectors = classifier.embed([(wave, RATE), image("bell")])
    assert [set(of_item) for of_item in vectors] == [{"audio"}, {"image"}]
    rows = classifier.networks["audio"].embed([wave[:RATE], wave[RATE:]])
    mean = classifier.projection.project("audio", rows).mean(axis=0)
    assert np.allclose(vectors[0]["audio"], mean / np.linalg.norm(mean), atol=1e-6)
    for vector in (*vectors[0].values(), *vectors[1].values()):
        assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1)
    assert classifier.embed([]) == []


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_items_are_segmented_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("anymodal.classifier.base._BATCH_BYTES", 3 * 40 * 60 * 3)
    groups = list(segmented((noise(seed=n) for n in range(7)), RATE))
    assert [len(group) for group in groups] == [3, 3, 1]
    assert np.array_equal(groups[2][0].windows[0].image, noise(seed=6))
    assert list(segmented([], RATE)) == []
    # the next are not decoded before they are asked for
    rest = segmented(iter([*[noise()] * 3, "gone.wav"]), RATE)
    assert len(next(rest)) == 3
    with pytest.raises(MediaError, match="gone"):
        next(rest)


@pytest.mark.parametrize(
    "item",
    [
        "a.wav", Path("a.wav"), b"abc", bytearray(b"abc"), noise(), Image.new("RGB", (3, 3)),
        Audio(np.zeros(9), RATE), (np.zeros(9), RATE), (np.zeros(9), 44_100.0),
    ],
)  # fmt: skip
def test_an_item_is_no_list_of_items(item):
    with pytest.raises(AnymodalError, match=r"write \[item\]"):
        list(segmented(item, RATE))


def test_two_items_may_be_a_tuple():
    (group,) = segmented((noise(), noise()), RATE)
    assert len(group) == 2
