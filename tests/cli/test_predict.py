"""`anymodal predict` on a small classifier."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from PIL import Image
from typer.testing import CliRunner

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.cli.main import app
from anymodal.core.errors import AnymodalError
from helpers.encoded import encoded_video
from helpers.paths import ROOT
from helpers.small import CLASSES, calibrated


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    wave = 0.2 * rng.standard_normal(56_000)
    soundfile.write(folder / "long.wav", wave, 16_000)
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(folder / "photo.png")
    video = encoded_video("mp4", "mpeg4", ("aac", wave[:41_600], 16_000), 26)
    (folder / "video.mp4").write_bytes(video)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def predict(media, monkeypatch):
    """Function: words → status, standard output and standard error."""
    load = ModalityAgnosticClassifier.load

    def small(location):
        return calibrated()[0] if location == "small" else load(location)

    monkeypatch.setattr(ModalityAgnosticClassifier, "load", small)

    def run(*words, model="small"):
        words = [str(media / w) if (media / str(w)).is_file() else str(w) for w in words]
        if model is not None:
            words += ["--model", model]
        done = CliRunner().invoke(app, ["predict", *words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


def test_a_table_with_one_row_per_file(predict):
    status, out, err = predict("long.wav", "photo.png", "video.mp4", "--top", "2")
    assert status == 0 and err == ""
    for words in ("3 classes, chance 0.33", "answer", "from", "audio, 4 s"):
        assert words in out
    assert len(re.findall(rf"({'|'.join(CLASSES)}) [01]\.\d\d", out)) == 3 * 2


def test_json(predict, media):
    status, out, err = predict("long.wav", "photo.png", "video.mp4", "--json")
    assert status == 0 and err == ""
    audio, photo, video = json.loads(out)
    assert audio["item"] == str(media / "long.wav") and photo["modality"] == "image"
    assert [window["start_s"] for window in audio["windows"]] == [0, 1, 2, 3]
    assert set(video["novelty"]) == {"audio", "image"}
    for answer in (audio, photo, video):
        assert set(answer["probabilities"]) == set(CLASSES)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["instrument"] == "unknown" or answer["known"]


@pytest.mark.parametrize(
    ("words", "starts"),
    [(("--hop", "0.5"), [0, 0.5, 1, 1.5, 2, 2.5]), (("--windows", "2"), [0, 2.5])],
)
def test_windows_are_spread_as_requested(predict, words, starts):
    _, out, _ = predict("long.wav", "--json", *words)
    (answer,) = json.loads(out)
    assert [window["start_s"] for window in answer["windows"]] == starts


def test_timelines_are_written_and_drawn(predict, tmp_path):
    status, *_ = predict(
        "long.wav", "photo.png", "video.mp4",
        "--csv", tmp_path / "t.csv", "--plot", tmp_path / "t.png",
    )  # fmt: skip
    assert status == 0
    table = pd.read_csv(tmp_path / "t.csv")
    assert table.shape == (4 + 1 + 3, 6 + 3)
    assert np.allclose(table[list(CLASSES)].sum(axis=1), 1)
    with Image.open(tmp_path / "t.png") as image:
        assert image.width > 500 and image.height > 500


def test_a_broken_file_does_not_stop_the_others(predict, tmp_path):
    status, out, err = predict("broken.mp4", "photo.png", tmp_path / "gone.wav", "--json")
    photo, *failures = json.loads(out)
    assert status == 1 and photo["modality"] == "image"
    for failure, name in zip(failures, ("broken.mp4", "gone.wav"), strict=True):
        assert failure["item"].endswith(name)
        assert "".join(failure["error"].split()) in "".join(err.split())
    status, *_ = predict(
        "broken.mp4", "--csv", tmp_path / "none.csv", "--plot", tmp_path / "none.png"
    )
    assert status == 1 and next(iter(pd.read_csv(tmp_path / "none.csv"))) == "item"
    assert not (tmp_path / "none.png").exists()


def test_all_files_of_a_folder(predict, tmp_path):
    with pytest.raises(AnymodalError, match="no files in"):
        predict(tmp_path)
    inner = tmp_path / "in" / "ner"
    inner.mkdir(parents=True)
    for name in ("b.png", ".hidden.png"):
        Image.new("RGB", (9, 9)).save(inner / name)
    (inner / "notes.txt").write_text("no image")
    status, out, _ = predict(tmp_path, "--json")
    assert status == 0, "files that were only found in a folder are no failure"
    names = [answer["item"].rpartition("/")[2] for answer in json.loads(out)]
    assert names == ["b.png", "notes.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hop", "0"], "0"),
        (["--plot", "t.gif"], "drawn as .png, .svg or .pdf"),
        (["photo.png"] * 50 + ["--plot", "t.png"], "51 timelines are too many"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(predict, words, message):
    with pytest.raises(AnymodalError, match=message):
        predict("photo.png", *words, model="nowhere")


def test_without_a_classifier_the_error_says_how_to_get_one(predict, tmp_path):
    with pytest.raises(AnymodalError, match="no classifier at .*train one with `anymodal run`"):
        predict("photo.png", "--params", tmp_path / "params.yaml", model=None)


def test_every_option_is_in_the_guide():
    command = typer.main.get_command(app).commands["predict"]
    guide = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert parameter.opts[0] in guide, parameter.opts
