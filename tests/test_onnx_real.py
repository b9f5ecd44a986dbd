"""The whole chain: the bundled pack's classifier exported, against itself, on real media."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from anymodal.cli import app
from anymodal.items import take_apart
from anymodal.model import ModalityAgnosticClassifier
from anymodal.onnx import OnnxClassifier
from anymodal.onnx.manifest import Manifest
from anymodal.onnx.parity import JOINT, TOLERANCE
from project import ROOT

SHARED = ROOT.parent / "shared" / "data"


def media_files(kind, count):
    paths = sorted((SHARED / "instruments" / kind).rglob("*.*"))
    if not paths:
        pytest.skip(f"no media under {SHARED}")
    return random.Random(2).sample(paths, min(count, len(paths)))


def made_media(folder):
    """A sound and a picture, for where there are no real ones."""
    rng = np.random.default_rng(0)
    sound, picture = folder / "sound.wav", folder / "picture.png"
    soundfile.write(sound, 0.1 * rng.standard_normal(24_000), 16_000)
    Image.fromarray(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)).save(picture)
    return [sound, picture]


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """Written by the command, as a user does, and compared on two files on the way."""
    folder = tmp_path_factory.mktemp("export") / "onnx"
    media = made_media(tmp_path_factory.mktemp("media"))[0].parent
    model = finished.folder / "artifacts/classifier"
    done = CliRunner().invoke(
        app, ["export", str(folder), "--model", str(model), "--check", str(media)]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert "2 files: largest difference of a probability" in done.output
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    return OnnxClassifier.load(folder, threads=1)


@pytest.fixture(scope="module")
def classifier(finished):
    return ModalityAgnosticClassifier.load(finished.folder / "artifacts/classifier", "cpu")


def test_written_whole(folder):
    manifest = Manifest.read(folder)
    assert set(manifest.models) == {"audio", "image", "audio_head", "image_head"}
    assert manifest.left_out == {}
    for name, rows in manifest.parity["random_rows"].items():
        assert rows["joint"] <= (1e-6 if name.endswith("_head") else JOINT)
        assert rows["votes"] <= 1e-6


def test_pictures_get_the_same_answers(classifier, exported):
    paths = media_files("images", 25)
    expected, got = classifier.predict(paths), exported.predict(paths)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)
        assert (one.answer, one.known) == (other.answer, other.known)


def test_sounds_get_the_same_answers_but_for_votes_that_rounding_moves(classifier, exported):
    paths = media_files("audio", 25)
    moved = rows = 0
    for path in paths:
        item = take_apart(path, classifier.sample_rate)
        (expected,), (got,) = (one.predict_moments([item]) for one in (classifier, exported))
        np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=TOLERANCE)
        assert got.top(1)[0][0] == expected.top(1)[0][0]
        sounds = [moment.audio for moment in item.moments]
        joint = classifier.projection.project("audio", classifier.networks["audio"].embed(sounds))
        seen = exported.run(
            "audio", np.concatenate([exported.prepare("audio", sound) for sound in sounds])
        )
        np.testing.assert_allclose(seen.joint, joint, atol=JOINT)
        # of one and the same joint vector every tree thinks the same
        np.testing.assert_array_equal(seen.votes, classifier.forest.predict_proba(seen.joint))
        votes = classifier.forest.predict_proba(joint)
        moved += int((np.abs(seen.votes - votes).max(axis=1) > 1e-6).sum())
        rows += len(sounds)
    assert moved <= 0.25 * rows


def test_a_film_gets_the_same_answer(classifier, exported):
    films = sorted((SHARED / "video").glob("*.*"))
    if not films:
        pytest.skip(f"no film under {SHARED}")
    expected, got = classifier.predict(films), exported.predict(films)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=TOLERANCE)
        assert one.modality == other.modality
        assert len(one.moments) == len(other.moments) > 1


def test_another_front_end_would_be_noticed(classifier, exported):
    """The tolerance for joint vectors tells a mistake from rounding."""
    paths = media_files("audio", 5) + media_files("images", 5)
    for path in paths:
        (moment,) = take_apart(path, classifier.sample_rate).moments[:1]
        if moment.audio is not None:
            part, wrong, modality = moment.audio, np.roll(moment.audio, 300), "audio"
        else:
            part, wrong, modality = moment.image, moment.image[:, :, ::-1].copy(), "image"
        right = exported.run(modality, exported.prepare(modality, part)).joint
        other = exported.run(modality, exported.prepare(modality, wrong)).joint
        if (part[..., :1] == part).all() and part.ndim == 3:
            continue  # a picture without colours
        assert np.abs(right - other).max() > JOINT, path


def test_bytes_and_arrays_are_items_too(classifier, exported):
    buffer = io.BytesIO()
    Image.new("RGB", (90, 70), "tan").save(buffer, format="PNG")
    items = [buffer.getvalue(), np.full((70, 90, 3), 80, np.uint8), (np.ones(900) / 2, 8000)]
    np.testing.assert_allclose(
        exported.predict_proba(items), classifier.predict_proba(items), atol=TOLERANCE
    )
