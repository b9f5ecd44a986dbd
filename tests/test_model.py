import io
import json
import shutil
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.errors import AnymodalError
from anymodal.media import MediaError
from anymodal.model import MAX_WINDOWS, ModalityAgnosticClassifier


def sound(seconds, rate=16_000, seed=0):
    buffer = io.BytesIO()
    samples = 0.2 * np.random.default_rng(seed).standard_normal(int(seconds * rate))
    soundfile.write(buffer, samples.clip(-1, 1), rate, format="WAV")
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
    assert [answer.windows for answer in answers] == [1, 1, 2]
    for answer in answers:
        assert answer.probabilities.sum() == pytest.approx(1)
        assert answer.classes == classifier.classes
        (first, second) = answer.top(2)
        assert first[1] >= second[1]


def test_an_answer_does_not_depend_on_its_company(classifier):
    alone = classifier.predict([sound(1)])[0].probabilities
    together = classifier.predict([picture(), sound(1), sound(1, seed=1)])[1].probabilities
    assert np.allclose(alone, together, atol=0.02)


def test_long_sounds_are_judged_by_a_bounded_number_of_windows(classifier):
    assert classifier.predict([sound(MAX_WINDOWS + 30)])[0].windows == MAX_WINDOWS


def test_no_items_no_answers(classifier):
    assert classifier.predict([]) == []


def test_saving_and_loading_changes_no_answer(classifier, tmp_path):
    classifier.save(tmp_path / "copy")
    classifier.save(tmp_path / "copy")
    copy = ModalityAgnosticClassifier.load(tmp_path / "copy")
    items = [sound(1), picture()]
    for one, two in zip(classifier.predict(items), copy.predict(items), strict=True):
        assert np.array_equal(one.probabilities, two.probabilities)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert not list((tmp_path / "copy").rglob("*.pkl"))


def test_one_item_instead_of_a_list_is_refused(classifier):
    with pytest.raises(AnymodalError, match=r"write \[item\]"):
        classifier.predict("photo.jpg")


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
    (tmp_path / "old/model.json").write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(AnymodalError, match="format 99"):
        ModalityAgnosticClassifier.load(tmp_path / "old")
    shutil.copytree(folder, tmp_path / "torn")
    (tmp_path / "torn/classifier.skops").write_bytes(b"torn")
    with pytest.raises(AnymodalError, match="not a readable classifier"):
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
