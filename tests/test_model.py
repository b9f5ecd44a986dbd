import io
import json
import shutil
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.dataset.instruments import INSTRUMENTS
from anymodal.errors import AnymodalError
from anymodal.items import Limits, Sound
from anymodal.media import MediaError
from anymodal.model import ModalityAgnosticClassifier
from anymodal.negatives import kinds
from films import write_film
from project import ROOT

DATA = ROOT.parent / "shared" / "data" / "instruments"


def samples(seconds, rate=16_000, seed=0):
    return (0.2 * np.random.default_rng(seed).standard_normal(int(seconds * rate))).clip(-1, 1)


def sound(seconds, rate=16_000, seed=0):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples(seconds, rate, seed), rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def picture(colour="tan"):
    buffer = io.BytesIO()
    Image.new("RGB", (90, 70), colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(finished):
    return finished.folder / "artifacts/classifier"


@pytest.fixture(scope="module")
def classifier(folder):
    return ModalityAgnosticClassifier.load(folder)


def test_mixed_items_come_back_in_order_with_their_modality(classifier):
    answers = classifier.predict([sound(0.5), picture(), sound(2.5)])
    assert [answer.modality for answer in answers] == ["audio", "image", "audio"]
    assert [len(answer.moments) for answer in answers] == [1, 1, 3]
    for answer in answers:
        assert answer.probabilities.sum() == pytest.approx(1)
        assert answer.classes == classifier.classes == tuple(classifier.classes_)
        (first, second) = answer.top(2)
        assert first[1] >= second[1]


def test_every_kind_of_item_is_the_same_item(classifier, tmp_path):
    (tmp_path / "a.wav").write_bytes(sound(1))
    image = Image.open(io.BytesIO(picture()))
    wave = samples(1).astype(np.float32)
    sounds = [sound(1), tmp_path / "a.wav", str(tmp_path / "a.wav"), (wave, 16_000),
              Sound(np.stack([wave, wave], axis=1), 16_000)]  # fmt: skip
    pictures = [picture(), image, np.asarray(image.convert("RGB")), image.convert("RGBA")]
    for items in (sounds, pictures):
        table = classifier.predict_proba(items)
        assert table.shape == (len(items), 10) and np.allclose(table, table[0], atol=1e-6)
    vectors = [one["audio"] for one in classifier.embed(sounds)]
    assert np.allclose(vectors, vectors[0], atol=1e-5) and vectors[0].shape == (128,)


def test_a_film_is_judged_by_its_moments(classifier, tmp_path):
    write_film(tmp_path / "film.mp4", INSTRUMENTS[0], 0)
    write_film(tmp_path / "mute.mp4", INSTRUMENTS[0], 0, silent=True)
    film, mute, still = classifier.predict(
        [tmp_path / "film.mp4", tmp_path / "mute.mp4", picture()]
    )
    assert [one.start_s for one in film.moments] == [0, 1, 2]
    assert set(film.novelty) == {"audio", "image"} and set(still.novelty) == {"image"}
    assert mute.moments[0].modality != "audio", "silence says nothing"
    for one in film.moments:
        assert one.probabilities.shape == (10,) and one.probabilities.sum() == pytest.approx(1)
    (vectors,) = classifier.embed([tmp_path / "film.mp4"])
    assert set(vectors) == {"audio", "image"}
    for vector in vectors.values():
        assert vector.shape == (128,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_an_answer_does_not_depend_on_its_company(classifier):
    alone = classifier.predict([sound(1)])[0].probabilities
    together = classifier.predict([picture(), sound(1), sound(1, seed=1)])[1].probabilities
    assert np.allclose(alone, together, atol=0.02)


def test_long_sounds_are_judged_by_a_bounded_number_of_moments(classifier):
    (found,) = classifier.predict([sound(30)], Limits(moments=4))
    assert np.allclose([one.start_s for one in found.moments], np.linspace(0, 29, 4))


def test_what_is_no_instrument_is_mostly_unknown(classifier):
    chance = np.random.default_rng(11)
    for name, (modality, make) in kinds(classifier.sample_rate).items():
        items = [make(chance) for _ in range(12)]
        if modality == "audio":
            items = [(one, classifier.sample_rate) for one in items]
        called = [one.answer == "unknown" for one in classifier.predict(items)]
        assert np.mean(called) >= 0.7, name
    silence, plain = classifier.predict([(np.zeros(32_000), 16_000), np.full((50, 50, 3), 9, "u1")])
    assert silence.answer == plain.answer == "unknown" and not silence.known


def test_instruments_are_mostly_named(classifier):
    """The pack was made of these very files, test and training ones alike."""
    if not DATA.is_dir():
        pytest.skip("no ../shared/data")
    for kind in ("audio", "images"):
        files = [next(iter(sorted((DATA / kind / name).iterdir()))) for name in classifier.classes]
        answers = classifier.predict(files)
        assert np.mean([one.known for one in answers]) >= 0.7
        right = [one.top(1)[0][0] for one in answers] == classifier.classes_
        assert np.mean(right) >= 0.7


def test_the_judge_was_fitted_and_measured(classifier, finished):
    told = json.loads((finished.folder / "artifacts/classification/judge.json").read_text())
    assert (told["dataset"], told["pairing"]) == ("instruments", "class")
    assert told["pair"] == classifier.facts["pair"]
    assert told["calibration_rows"] == classifier.judge.facts["calibration_rows"]
    for modality in ("audio", "image"):
        assert (
            told["modalities"][modality]["temperature"] == (classifier.judge.temperatures[modality])
        )
        assert told["modalities"][modality]["known"] > 0.8
    assert told["fusion"]["both"] > told["fusion"]["audio"]
    assert all(one["unknown"] > 0.5 for one in told["unknown"].values())


def test_what_an_item_is_near_to(classifier):
    rows = classifier.reference.table
    assert set(rows["instrument"]) <= set(classifier.classes) and len(rows) > 100
    (vectors,) = classifier.embed([picture()])
    found = classifier.reference.nearest(vectors["image"], 3, "audio")
    assert [one.modality for one in found] == ["audio"] * 3
    assert 1 >= found[0].cosine >= found[1].cosine >= found[2].cosine


def test_no_items_no_answers(classifier):
    assert classifier.predict([]) == [] and classifier.embed([]) == []
    assert classifier.predict_proba([]).shape == (0, 10)


def test_saving_and_loading_changes_no_answer(classifier, tmp_path):
    classifier.save(tmp_path / "copy")
    classifier.save(tmp_path / "copy")
    copy = ModalityAgnosticClassifier.load(tmp_path / "copy")
    items = [sound(1), picture()]
    for one, two in zip(classifier.predict(items), copy.predict(items), strict=True):
        assert np.array_equal(one.probabilities, two.probabilities)
        assert (one.known, one.novelty) == (two.known, two.novelty)
    assert copy.reference.table.equals(classifier.reference.table)
    assert np.array_equal(copy.reference.vectors, classifier.reference.vectors)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert not list((tmp_path / "copy").rglob("*.pkl"))


def test_one_item_instead_of_a_list_is_refused(classifier):
    with pytest.raises(AnymodalError, match=r"write \[item\]"):
        classifier.predict("photo.jpg")
    with pytest.raises(AnymodalError, match=r"write \[item\]"):
        classifier.embed((samples(1), 16_000))


def test_what_is_no_media_is_refused_by_name(classifier, tmp_path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(MediaError, match="notes.jpg"):
        classifier.predict([tmp_path / "notes.jpg"])
    with pytest.raises(MediaError, match="gone.wav"):
        classifier.predict([tmp_path / "gone.wav"])


def test_broken_directories_are_refused(folder, tmp_path):
    with pytest.raises(AnymodalError, match="no classifier at"):
        ModalityAgnosticClassifier.load(tmp_path)
    shutil.copytree(folder, tmp_path / "old")
    meta = json.loads((tmp_path / "old/model.json").read_text())
    for number in (1, 99):
        (tmp_path / "old/model.json").write_text(json.dumps(meta | {"format": number}))
        with pytest.raises(AnymodalError, match=f"format {number}, this version reads 2"):
            ModalityAgnosticClassifier.load(tmp_path / "old")
    shutil.copytree(folder, tmp_path / "torn")
    (tmp_path / "torn/classifier.skops").write_bytes(b"torn")
    with pytest.raises(AnymodalError, match="not a readable classifier"):
        ModalityAgnosticClassifier.load(tmp_path / "torn")
    shutil.copy(folder / "classifier.skops", tmp_path / "torn")
    (tmp_path / "torn/judge.json").unlink()
    with pytest.raises(AnymodalError, match="no readable judge.json"):
        ModalityAgnosticClassifier.load(tmp_path / "torn")


def test_other_weights_than_the_projections_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mixed")
    header = tmp_path / "mixed/projection/projection.json"
    told = json.loads(header.read_text())
    told["encoders"]["audio"]["version"] = "0" * 16
    header.write_text(json.dumps(told))
    with pytest.raises(AnymodalError, match="0000000000000000"):
        ModalityAgnosticClassifier.load(tmp_path / "mixed")


def test_the_registered_model_loads_by_its_uri(finished):
    # in a process of its own, for MLflow's store is a setting of the whole process
    script = """
import anymodal.errors, anymodal.model
load = anymodal.model.ModalityAgnosticClassifier.load
assert len(load("models:/anymodal-classifier@champion").classes) == 10
try:
    load("models:/anymodal-classifier@nobody")
except anymodal.errors.AnymodalError as error:
    assert "cannot fetch" in str(error), error
else:
    raise AssertionError("a missing version was loaded")
"""
    finished.run(sys.executable, "-c", script)
