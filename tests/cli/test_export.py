"""`anymodal export`."""

import pytest
from typer.testing import CliRunner

from anymodal.cli.main import app
from anymodal.core.errors import AnymodalError
from anymodal.export import OnnxClassifier
from helpers.exported import CLASSES, untrained_classifier


@pytest.mark.slow
def test_the_heads_of_a_saved_classifier(tmp_path):
    untrained_classifier().save(tmp_path / "saved")
    words = ["export", tmp_path / "out", "--model", tmp_path / "saved", "--heads-only"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    for fact in ("audio_head.onnx", "4 classes", "image: the head alone"):
        assert fact in done.output
    assert OnnxClassifier.load(tmp_path / "out").classes == CLASSES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "{tmp}"], "no classifier at"),
        (["--heads-only", "--check", "{tmp}"], "omit one"),
        (["--check", "{tmp}"], "holds no audio"),
    ],
)
def test_what_cannot_be_exported_is_one_line(tmp_path, words, message):
    words = [word.format(tmp=tmp_path) for word in words]
    done = CliRunner().invoke(app, ["export", str(tmp_path / "x"), *words])
    assert done.exit_code == 1 and isinstance(done.exception, AnymodalError), done.output
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []
