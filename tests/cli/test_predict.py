"""`anymodal predict` on the classifier of a project."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from PIL import Image
from typer.testing import CliRunner

from anymodal.cli import app
from anymodal.dataset.instruments import INSTRUMENTS
from anymodal.errors import AnymodalError
from films import write_film
from project import ROOT


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    wave = 0.2 * np.random.default_rng(0).standard_normal(56_000)
    soundfile.write(folder / "long.wav", wave, 16_000)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    write_film(folder / "film.mp4", INSTRUMENTS[0], 0)
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


@pytest.fixture
def predict(finished, media):
    """Function: words → status, standard output and error output."""

    def run(*words, model=True):
        words = [str(media / w) if (media / str(w)).is_file() else str(w) for w in words]
        if model:
            words += ["--model", str(finished.folder / "artifacts/classifier")]
        done = CliRunner().invoke(app, ["predict", *words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


def test_a_table_with_a_line_a_file(predict):
    status, out, err = predict("long.wav", "photo.png", "film.mp4", "--top", "2")
    assert status == 0 and err == ""
    for words in ("10 classes, chance 0.10", "answer", "from", "2."):
        assert words in out
    assert "audio, 4 s" in " ".join(out.split()) and "3." not in out.splitlines()[1]


def test_json(predict, media):
    status, out, err = predict("long.wav", "photo.png", "film.mp4", "--json")
    assert status == 0 and err == ""
    sound, photo, film = json.loads(out)
    assert sound["item"] == str(media / "long.wav") and photo["modality"] == "image"
    assert [one["start_s"] for one in sound["moments"]] == [0, 1, 2, 3]
    assert set(film["novelty"]) == {"audio", "image"}
    for one in (sound, photo, film):
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["instrument"] == "unknown" or one["known"]


def test_moments_are_spread_as_asked(predict):
    _, out, _ = predict("long.wav", "--json", "--hop", "0.5")
    (found,) = json.loads(out)
    assert [one["start_s"] for one in found["moments"]] == [0, 0.5, 1, 1.5, 2, 2.5]
    _, out, _ = predict("long.wav", "--json", "--moments", "2")
    (found,) = json.loads(out)
    assert [one["start_s"] for one in found["moments"]] == [0, 2.5]


def test_timelines_are_written_and_drawn(predict, tmp_path):
    status, out, _ = predict("long.wav", "photo.png", "film.mp4", "--csv", tmp_path / "t.csv",
                             "--plot", tmp_path / "t.png")  # fmt: skip
    assert status == 0 and "t.csv" in out.replace("\n", "") and "t.png" in out.replace("\n", "")
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 4 + 1 + 3
    assert np.allclose(table.iloc[:, 6:].sum(axis=1), 1) and table.shape[1] == 6 + 10
    with Image.open(tmp_path / "t.png") as image:
        assert image.width > 500 and image.height > 500


def test_one_broken_file_does_not_stop_the_others(predict, tmp_path):
    status, out, err = predict("broken.mp4", "photo.png", tmp_path / "gone.wav")
    # a long path is wrapped
    assert status == 1 and "o.png" in out
    flat = "".join(err.split())
    assert "broken.mp4" in flat and "gone.wav:doesnotexist" in flat
    status, out, _ = predict("broken.mp4", "photo.png", "--json")
    good, bad = json.loads(out)
    assert status == 1 and bad["item"].endswith("broken.mp4") and "error" in bad
    assert good["modality"] == "image"
    status, out, _ = predict("broken.mp4", "--csv", tmp_path / "none.csv", "--plot",
                             tmp_path / "none.png")  # fmt: skip
    assert status == 1 and next(iter(pd.read_csv(tmp_path / "none.csv"))) == "item"
    assert not (tmp_path / "none.png").exists()


def test_of_a_folder_everything_in_it(predict, tmp_path):
    with pytest.raises(AnymodalError, match="no files in"):
        predict(tmp_path)
    inner = tmp_path / "in" / "ner"
    inner.mkdir(parents=True)
    for name in ("b.png", ".hidden.png"):
        Image.new("RGB", (9, 9)).save(inner / name)
    (inner / "notes.txt").write_text("no picture")
    status, out, _ = predict(tmp_path, "--json")
    found = json.loads(out)
    assert status == 0, "what was only found in a folder is no failure"
    assert [one["item"].rpartition("/")[2] for one in found] == ["b.png", "notes.txt"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hop", "0"], "more than 0 s apart"),
        (["--plot", "t.gif"], "drawn as .png, .svg or .pdf"),
        (["photo.png"] * 50 + ["--plot", "t.png"], "51 timelines are too many"),
    ],
)
def test_wrong_options_are_told_before_anything_is_loaded(predict, words, told):
    with pytest.raises(AnymodalError, match=told):
        predict("photo.png", *words, "--model", "nowhere", model=False)


def test_without_a_classifier_it_says_how_to_get_one(predict, tmp_path):
    with pytest.raises(AnymodalError, match="no classifier at .*train one with `anymodal run`"):
        predict("photo.png", "--params", tmp_path / "params.yaml", model=False)


def test_every_option_is_in_the_guide():
    command = typer.main.get_command(app).commands["predict"]
    guide = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert parameter.opts[0] in guide, parameter.opts
