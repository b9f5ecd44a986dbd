"""The classifier of a finished pipeline exported, against itself, on real media."""

import random

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.cli.main import app
from anymodal.export import OnnxClassifier
from anymodal.export.parity import TOLERANCE, TOLERANCES
from anymodal.media.segmentation import segment
from helpers.paths import shared

pytestmark = pytest.mark.slow
JOINT = TOLERANCES["joint"]


def media_files(kind, count):
    paths = shared(f"data/instruments/{kind}/**/*.*")
    return random.Random(2).sample(paths, min(count, len(paths)))


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """Written by the command, as a user does, and compared on two files on the way."""
    rng = np.random.default_rng(0)
    media = tmp_path_factory.mktemp("media")
    soundfile.write(media / "audio.wav", 0.1 * rng.standard_normal(24_000), 16_000)
    image = Image.fromarray(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8))
    image.save(media / "image.png")
    folder = tmp_path_factory.mktemp("export") / "onnx"
    model = finished.folder / "artifacts/classifier"
    words = ["export", folder, "--model", model, "--check", media]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    exported = OnnxClassifier.load(folder, threads=1)
    assert set(exported.manifest.models) == {"audio", "image", "audio_head", "image_head"}
    assert exported.manifest.parity.items.items == 2
    return exported


@pytest.fixture(scope="module")
def classifier(finished):
    return ModalityAgnosticClassifier.load(finished.folder / "artifacts/classifier", "cpu")


def test_images_get_the_same_answers(classifier, exported):
    paths = media_files("images", 25)
    for got, expected in zip(exported.predict(paths), classifier.predict(paths), strict=True):
        np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=1e-3)
        assert (got.answer, got.known) == (expected.answer, expected.known)


def test_audio_gets_the_same_answers_but_for_votes_that_rounding_moves(classifier, exported):
    moved = rows = 0
    for path in media_files("audio", 25):
        item = segment(path, classifier.sample_rate)
        (got,), (expected,) = (c.predict_windows([item]) for c in (exported, classifier))
        np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=TOLERANCE)
        assert got.top(1)[0][0] == expected.top(1)[0][0]
        parts = [window.audio for window in item.windows]
        joint = classifier.projection.project("audio", classifier.networks["audio"].embed(parts))
        prepared = np.concatenate([exported.prepare("audio", part) for part in parts])
        outputs = exported.run("audio", prepared)
        np.testing.assert_allclose(outputs.joint, joint, atol=JOINT)
        # for the same joint vector every tree votes the same
        np.testing.assert_array_equal(outputs.votes, classifier.votes(outputs.joint))
        moved += int((np.abs(outputs.votes - classifier.votes(joint)).max(axis=1) > 1e-6).sum())
        rows += len(parts)
    assert moved <= 0.25 * rows


def test_videos_get_the_same_answers(classifier, exported):
    videos = shared("data/video/*.*")
    for got, expected in zip(exported.predict(videos), classifier.predict(videos), strict=True):
        np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=TOLERANCE)
        assert got.modality == expected.modality
        assert len(got.windows) == len(expected.windows) > 1


def test_another_front_end_would_be_noticed(classifier, exported):
    """The tolerance for joint vectors separates mistakes from rounding."""
    for path in media_files("audio", 5) + media_files("images", 5):
        (window,) = segment(path, classifier.sample_rate).windows[:1]
        if window.audio is not None:
            parts, modality = (window.audio, np.roll(window.audio, 300)), "audio"
        else:
            parts, modality = (window.image, window.image[:, :, ::-1].copy()), "image"
            if (window.image[..., :1] == window.image).all():
                continue  # an image without colours
        joint, other = (exported.run(modality, exported.prepare(modality, p)).joint for p in parts)
        assert np.abs(joint - other).max() > JOINT, path
