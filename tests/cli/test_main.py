"""The command line: what it prints, and how it ends."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal import __version__
from anymodal.cli.main import main
from anymodal.pipeline.runner import STAGES


@pytest.fixture
def anymodal(capfd, monkeypatch):
    """Function: words → exit status, standard output and standard error of `anymodal`."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["anymodal", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capfd.readouterr()

    return run


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom anymodal.cli.main import app\n"
        "from typer.testing import CliRunner\n"
        "answer = CliRunner().invoke(app, ['--help'])\n"
        "assert answer.exit_code == 0 and 'predict' in answer.stdout\n"
        "heavy = {'torch', 'mlflow', 'sklearn', 'pandas', 'tensorflow', 'matplotlib', 'dvc'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_module_is_the_command():
    words = [sys.executable, "-m", "anymodal", "--version"]
    assert subprocess.run(words, capture_output=True, text=True).stdout.strip() == __version__


def test_outside_a_project_every_command_says_so_in_one_line(anymodal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (*((stage,) for stage in STAGES), ("run",), ("tune",), ("results",)):
        status, out, err = anymodal(*words)
        assert (status, out) == (1, ""), words
        assert err.startswith("error: ") and err.count("\n") == 1 and "project" in err, words
        assert not list(tmp_path.iterdir())


def test_predict_without_a_classifier_says_what_to_do(anymodal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = anymodal("predict", "a.jpg")
    assert status == 1 and "anymodal run" in err and err.count("\n") == 1


class TestOnAFinishedProject:
    @pytest.fixture(autouse=True)
    def project(self, finished, monkeypatch):
        monkeypatch.chdir(finished.folder)

    @pytest.fixture
    def media(self, tmp_path):
        Image.new("RGB", (80, 60), "tan").save(tmp_path / "photo.jpg")
        tone = np.sin(2 * np.pi * 440 * np.arange(2 * 22050) / 22050)
        soundfile.write(tmp_path / "note.wav", 0.3 * tone, 22050)
        (tmp_path / "notes.txt").write_text("neither audio nor an image")
        return tmp_path

    def test_predict(self, anymodal, media):
        files = [media / "photo.jpg", media / "notes.txt", media / "note.wav"]
        status, out, err = anymodal("predict", "--json", *files)
        assert status == 1 and "notes.txt" in err
        photo, note, failed = json.loads(out)
        assert [entry["item"] for entry in (photo, failed, note)] == list(map(str, files))
        assert (photo["modality"], note["modality"]) == ("image", "audio")
        for entry in (photo, note):
            assert sum(entry["probabilities"].values()) == pytest.approx(1)
            best = max(entry["probabilities"], key=entry["probabilities"].get)
            assert entry["instrument"] == (best if entry["known"] else "unknown")

        status, out, _ = anymodal("predict", "--top", 2, media / "note.wav")
        assert status == 0
        for words in ("10 classes", str(media / "note.wav"), "audio"):
            assert words in out

    def test_results(self, anymodal):
        status, out, _ = anymodal("results")
        assert status == 0
        pair = "musicnn_mtt+efficientnet_lite0"
        for words in ("class-paired", pair, "chance", "MMT", "zero-shot"):
            assert words in out

    def test_an_unknown_encoder_is_refused_with_the_known_ones(self, anymodal):
        status, _, err = anymodal("translate", "--audio", "yamnet")
        assert status == 1 and "musicnn_mtt" in err
