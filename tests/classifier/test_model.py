"""A saved classifier: every kind of item, limits, saving and loading, and what is refused."""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.classifier.model import Audio, ModalityAgnosticClassifier
from anymodal.classifier.open_set import HEADER
from anymodal.core.errors import AnymodalError, MediaError
from helpers.exported import CLASSES, TinyAudio, tiny, untrained_classifier

RATE = 16_000
SAMPLES = 0.2 * np.random.default_rng(0).standard_normal(RATE).clip(-4, 4)


def audio():
    buffer = io.BytesIO()
    soundfile.write(buffer, SAMPLES, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def image():
    buffer = io.BytesIO()
    Image.new("RGB", (90, 70), "tan").save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "classifier"
    untrained_classifier().save(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(folder):
    return ModalityAgnosticClassifier.load(folder)


def test_every_form_of_an_item_is_the_same_item(classifier, tmp_path):
    (tmp_path / "a.wav").write_bytes(audio())
    wave, opened = SAMPLES.astype(np.float32), Image.open(io.BytesIO(image()))
    forms = [audio(), tmp_path / "a.wav", str(tmp_path / "a.wav"), (wave, RATE),
             Audio(np.stack([wave, wave], axis=1), RATE)]  # fmt: skip
    images = [image(), opened, np.asarray(opened.convert("RGB")), opened.convert("RGBA")]
    for items in (forms, images):
        table = classifier.predict_proba(items)
        assert table.shape == (len(items), 4) and np.allclose(table, table[0], atol=1e-6)
    vectors = [of_item["audio"] for of_item in classifier.embed(forms)]
    assert np.allclose(vectors, vectors[0], atol=1e-4) and vectors[0].shape == (8,)


def test_saving_and_loading_changes_no_answer(classifier, tmp_path):
    classifier.save(tmp_path / "copy")
    classifier.save(tmp_path / "copy")
    copy = ModalityAgnosticClassifier.load(tmp_path / "copy")
    items = [audio(), image()]
    for before, after in zip(classifier.predict(items), copy.predict(items), strict=True):
        assert np.array_equal(before.probabilities, after.probabilities)
        assert (before.known, before.novelty) == (after.known, after.novelty)
    assert copy.classes == CLASSES and copy.facts == classifier.facts
    assert copy.reference.table.equals(classifier.reference.table)
    assert np.array_equal(copy.reference.vectors, classifier.reference.vectors)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {
        "model.json", "projection", "classifier.skops", "calibrator.json", "calibrator.safetensors",
        "reference.parquet", "encoders",
    }  # fmt: skip


def test_a_failed_save_leaves_the_old_classifier(tmp_path):
    class Unsaved(TinyAudio):
        def save_weights(self, path):
            raise OSError("disk full")

    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "model.json").write_text("old")
    classifier = tiny()
    classifier.networks["audio"] = Unsaved()
    with pytest.raises(OSError, match="disk full"):
        classifier.save(tmp_path / "classifier")
    assert [path.name for path in tmp_path.rglob("*")] == ["classifier", "model.json"]


def test_single_items_and_other_files_are_refused(classifier, tmp_path):
    for call in (classifier.predict, classifier.embed):
        with pytest.raises(AnymodalError, match=r"write \[item\]"):
            call((SAMPLES, RATE))
    (tmp_path / "notes.jpg").write_text("not an image")
    for name in ("notes.jpg", "gone.wav"):
        with pytest.raises(MediaError, match=name):
            classifier.predict([tmp_path / name])


def test_damaged_folders_are_refused(folder, tmp_path):
    def refused(what):
        with pytest.raises(AnymodalError, match=what):
            ModalityAgnosticClassifier.load(copy)

    copy = tmp_path
    refused("no classifier at")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    header = json.loads((copy / "model.json").read_text())
    for number in (1, 2, 99):
        (copy / "model.json").write_text(json.dumps(header | {"format": number}))
        refused(f"format {number}, this version reads 3; .*train again")
    (copy / "model.json").write_text(json.dumps(header))
    projection = json.loads((copy / "projection/projection.json").read_text())
    projection["encoders"]["audio"]["version"] = "0" * 16
    (copy / "projection/projection.json").write_text(json.dumps(projection))
    refused("made with musicnn_mtt 0000000000000000, not with")
    shutil.copy(folder / "projection/projection.json", copy / "projection")
    (copy / "classifier.skops").write_bytes(b"torn")
    refused("is not readable")
    (copy / "classifier.skops").unlink()
    refused("is not readable")
    shutil.copy(folder / "classifier.skops", copy)
    (copy / HEADER).unlink()
    refused("no readable calibrator.json")
