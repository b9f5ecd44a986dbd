"""From moments to answers: which moments count, what an answer rests on, when it is `unknown`."""

import numpy as np
import pytest

from anymodal.answering import answer, gathered
from anymodal.fusion import Weights
from anymodal.items import Moment, Moments
from anymodal.judge import Judge
from small import CLASSES, RATE, judged, picture, sound
from test_media import encoded_sound, encoded_video

LOUD = np.ones(8, np.float32)
SEEN = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
SILENT, PLAIN = np.zeros(8, np.float32), np.zeros((2, 2, 3), np.uint8)
JUDGE = Judge({"audio": 0.5, "image": 2.0}, 0.01, Weights(1.0, 0.5))
NAMES = ("a", "b")


def told(*moments, votes, novelties, judge=JUDGE):
    """The answer for one item; votes and novelties in the order of its moments."""
    item = Moments("it", "video", float(len(moments)),
                   tuple(Moment(float(n), 1.0, *m) for n, m in enumerate(moments)))  # fmt: skip
    places = {}
    for modality in ("audio", "image"):
        _, (where,) = gathered([item], modality)
        if where:
            places[modality] = where
    tables = {m: np.array([[1 - v, v] for v in votes[m]]) for m in votes}
    return answer(
        item, places, tables, {m: np.array(n) for m, n in novelties.items()}, judge, NAMES
    )


def test_votes_of_moments_are_averaged_and_calibrated():
    found = told((LOUD,), (LOUD,), votes={"audio": [0.6, 0.8]}, novelties={"audio": [0.5, 0.9]})
    assert found.modality == "audio" and found.known and found.answer == "b"
    assert np.allclose(found.probabilities, np.array([0.09, 0.49]) / 0.58)
    assert [np.round(one.probabilities[1], 6) for one in found.moments] == [
        round(0.36 / 0.52, 6), round(0.64 / 0.68, 6),
    ]  # fmt: skip
    assert [one.start_s for one in found.moments] == [0, 1]
    assert found.novelty == {"audio": pytest.approx(0.7)}


def test_moments_that_are_novel_or_blank_do_not_count():
    found = told((LOUD,), (LOUD,), (SILENT,), votes={"audio": [0.9, 0.1, 0.0]},
                 novelties={"audio": [1.0, 1.01, 0.0]})  # fmt: skip
    assert np.allclose(found.probabilities, np.array([0.01, 0.81]) / 0.82)
    assert [one.known for one in found.moments] == [True, False, False]
    assert found.known, "half of the moments that are not blank"


def test_an_item_is_known_where_half_of_what_is_not_blank_is():
    sounds = [(LOUD,)] * 3
    for novel, known in (([2, 2, 0], False), ([2, 0, 0], True), ([2, 2, 2], False)):
        found = told(*sounds, votes={"audio": [0.9] * 3}, novelties={"audio": novel})
        assert found.known is known and found.answer == ("b" if known else "unknown")
        assert found.top(1) == [("b", pytest.approx(0.81 / 0.82))], "told all the same"
    pauses = told((LOUD,), *[(SILENT,)] * 5, votes={"audio": [0.9] * 6},
                  novelties={"audio": [0.5] * 6})  # fmt: skip
    assert pauses.known
    silence = told((SILENT,), votes={"audio": [0.9]}, novelties={"audio": [0.0]})
    assert not silence.known and silence.answer == "unknown"


def test_both_modalities_of_a_film_are_fused():
    found = told((LOUD, SEEN), votes={"audio": [0.6], "image": [0.2]},
                 novelties={"audio": [0], "image": [0]})  # fmt: skip
    sounds, pictures = (
        np.array([0.16, 0.36]) / 0.52,
        np.sqrt([0.8, 0.2]) / np.sqrt([0.8, 0.2]).sum(),
    )
    product = sounds * pictures**0.5
    assert found.modality == found.moments[0].modality == "both"
    assert np.allclose(found.probabilities, product / product.sum())
    assert np.allclose(found.moments[0].probabilities, found.probabilities)


@pytest.mark.parametrize(
    ("moment", "novel", "used", "known"),
    [
        ((LOUD, SEEN), (0, 2), "audio", True),
        ((LOUD, SEEN), (2, 0), "image", True),
        ((LOUD, SEEN), (2, 2), "both", False),
        ((SILENT, SEEN), (0, 0), "image", True),
        ((LOUD, PLAIN), (0, 0), "audio", True),
        ((SILENT, PLAIN), (0, 0), "both", False),
    ],
)
def test_what_is_not_known_of_a_film_does_not_count(moment, novel, used, known):
    found = told(moment, votes={"audio": [0.9], "image": [0.3]},
                 novelties={"audio": [novel[0]], "image": [novel[1]]})  # fmt: skip
    assert (found.modality, found.known) == (used, known)
    assert (found.moments[0].modality, found.moments[0].known) == (used, known)
    alone = {"audio": JUDGE.calibrated("audio", np.array([[0.1, 0.9]])),
             "image": JUDGE.calibrated("image", np.array([[0.7, 0.3]]))}  # fmt: skip
    expected = JUDGE.fused(alone if used == "both" else {used: alone[used]})
    assert np.allclose(found.probabilities, expected[0])


def test_where_one_modality_ends_the_other_goes_on():
    found = told((LOUD, SEEN), (None, SEEN), (LOUD, None),
                 votes={"audio": [0.9, 0.8], "image": [0.6, 0.6]},
                 novelties={"audio": [0, 0], "image": [0, 0]})  # fmt: skip
    assert [one.modality for one in found.moments] == ["both", "image", "audio"]
    assert found.modality == "both"


def test_places_of_many_items():
    items = [
        Moments("s", "audio", 2, (Moment(0, 1, LOUD), Moment(1, 1, 2 * LOUD))),
        Moments("p", "image", 0, (Moment(0, 0, None, SEEN),)),
        Moments("f", "video", 2, (Moment(0, 1, None, SEEN), Moment(1, 1, 3 * LOUD, SEEN))),
    ]
    sounds, where = gathered(items, "audio")
    assert [part[0] for part in sounds] == [1, 2, 3]
    assert where == [{0: 0, 1: 1}, {}, {1: 2}]
    assert gathered(items, "image")[1] == [{}, {0: 0}, {0: 1, 1: 2}]
    assert gathered([], "image") == ([], [])


# ------------------------------------------------------------------ on a classifier, end to end


@pytest.fixture(scope="module")
def classifier():
    return judged()[0]


def test_every_kind_of_item_is_named(classifier):
    items, expected = [], []
    for name in CLASSES:
        wave = sound(name, 2.0, seed=7)
        items += [(wave, RATE), encoded_sound(wave, RATE), picture(name, 7)]
        expected += [name] * 3
    assert [one.answer for one in classifier.predict(items)] == expected
    table = classifier.predict_proba(items)
    assert table.shape == (9, 3) and np.allclose(table.sum(axis=1), 1)
    assert [classifier.classes_[n] for n in table.argmax(axis=1)] == expected
    assert classifier.predict([]) == [] and classifier.predict_proba([]).shape == (0, 3)


def test_what_is_like_no_training_row_is_unknown(classifier):
    chance = np.random.default_rng(0)
    noise = (0.3 * chance.standard_normal(2 * RATE), RATE)
    stripes = np.zeros((24, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    silence = (np.zeros(RATE), RATE)
    answers = classifier.predict([noise, stripes, silence, np.full((9, 9, 3), 99, np.uint8)])
    assert [one.answer for one in answers] == ["unknown"] * 4
    assert answers[0].novelty["audio"] > 1


def test_an_instrument_in_a_part_of_a_sound_is_found_there(classifier):
    chance = np.random.default_rng(0)
    noise = 0.3 * chance.standard_normal(RATE).astype(np.float32)
    horn = sound("horn", 1.0, seed=5)
    wave = np.concatenate([horn, noise, horn, np.zeros(2 * RATE, np.float32)])
    (found,) = classifier.predict([(wave, RATE)])
    assert [one.known for one in found.moments] == [True, False, True, False, False]
    assert found.answer == "horn" and found.known
    (mostly_noise,) = classifier.predict([(np.concatenate([horn, noise, noise, noise]), RATE)])
    assert mostly_noise.answer == "unknown" and mostly_noise.top(1)[0][0] == "horn"


def test_an_answer_does_not_depend_on_its_company(classifier):
    items = [(sound("bell", 3.0), RATE), picture("horn"), (sound("drone"), RATE)]
    alone = [classifier.predict([item])[0] for item in items]
    for one, other in zip(alone, classifier.predict(items), strict=True):
        assert np.allclose(one.probabilities, other.probabilities)
        assert one.known == other.known and one.novelty == pytest.approx(other.novelty)


def test_a_film_is_named_by_both(classifier):
    wave = sound("drone", 2.0)
    film = encoded_video(sound=("aac", wave, RATE), frames=20)
    (found,) = classifier.predict([film])
    # its frames are grey, which is no colour of a class
    assert found.answer == "drone" and found.modality == "audio" and set(found.novelty) == {
        "audio", "image",
    }  # fmt: skip
    (vectors,) = classifier.embed([film])
    assert set(vectors) == {"audio", "image"}


def test_joint_vectors_are_means_of_their_moments(classifier):
    wave = sound("bell", 2.0)
    found = classifier.embed([(wave, RATE), picture("bell")])
    assert [set(one) for one in found] == [{"audio"}, {"image"}]
    rows = classifier.networks["audio"].embed([wave[:RATE], wave[RATE:]])
    mean = classifier.projection.project("audio", rows).mean(axis=0)
    assert np.allclose(found[0]["audio"], mean / np.linalg.norm(mean), atol=1e-6)
    for one in found:
        for vector in one.values():
            assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1)
    assert classifier.embed([]) == []
