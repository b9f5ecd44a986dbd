"""The command line, run as a process: what it prints, and how it ends."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal import __version__


def anymodal(*words, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "anymodal", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


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


def test_version():
    assert anymodal("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    "stage",
    [
        "dataset",
        "check",
        "embed",
        "translate",
        "retrieve",
        "select",
        "classify",
        "report",
        "run",
        "tune",
    ],
)
def test_outside_a_project_every_stage_says_so_in_one_line(stage, tmp_path):
    answer = anymodal(stage, cwd=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert "project" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_predict_without_a_classifier_says_what_to_do(tmp_path):
    answer = anymodal("predict", "a.jpg", cwd=tmp_path)
    assert answer.returncode == 1
    assert "anymodal run" in answer.stderr and answer.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    Image.new("RGB", (80, 60), "tan").save(folder / "photo.jpg")
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * 22050) / 22050)
    soundfile.write(folder / "note.wav", 0.3 * tone, 22050)
    (folder / "notes.txt").write_text("neither sound nor picture")
    return folder


def test_predict_takes_sounds_and_pictures_and_tells_what_it_cannot_read(finished, media):
    files = [media / "photo.jpg", media / "notes.txt", media / "note.wav"]
    answer = anymodal("predict", "--json", *files, cwd=finished.folder)
    assert answer.returncode == 1
    told = json.loads(answer.stdout)
    assert [entry["item"] for entry in told if "error" not in entry] == [
        str(files[0]),
        str(files[2]),
    ]
    assert [entry.get("modality") for entry in told if "error" not in entry] == ["image", "audio"]
    for entry in told[:2]:
        assert sum(entry["probabilities"].values()) == pytest.approx(1)
        best = max(entry["probabilities"], key=entry["probabilities"].get)
        assert entry["instrument"] == (best if entry["known"] else "unknown")
    assert "notes.txt" in answer.stderr


def test_predict_prints_a_table(finished, media):
    answer = anymodal("predict", "--top", 2, media / "note.wav", cwd=finished.folder)
    assert answer.returncode == 0
    assert "note.wav" in answer.stdout and "audio" in answer.stdout
    assert "10 classes" in answer.stdout


def test_results_tells_what_they_rest_on(finished):
    answer = anymodal("results", cwd=finished.folder)
    assert answer.returncode == 0
    for word in ("class-paired", "musicnn_mtt+efficientnet_lite0", "chance", "MMT", "zero-shot"):
        assert word in answer.stdout


def test_translate_of_an_unknown_encoder_lists_the_known(finished):
    answer = anymodal("translate", "--audio", "yamnet", cwd=finished.folder)
    assert answer.returncode == 1
    assert "musicnn_mtt" in answer.stderr
