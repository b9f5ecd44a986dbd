"""README.md: its length, and its Python run as typed after `make demo`."""

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from helpers.paths import ROOT
from helpers.videos import class_video

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_length():
    assert len(README.splitlines()) <= 150


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """What a user has after `make demo`, with a photograph, a note and a video."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("artifacts", "mlflow.db"):
        (folder / name).symlink_to(finished.folder / name)
    time = np.arange(32_000) / 16_000
    soundfile.write(folder / "note.wav", 0.3 * np.sin(2 * np.pi * 440 * time), 16_000)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    class_video(folder / "concert.mp4", "violin", seed=0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_runs_as_typed(number, folder, finished):
    words = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", PYTHON[number]]
    done = subprocess.run(
        words, cwd=folder, env=finished.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if "predict([" in PYTHON[number]:
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["photo.jpg", "note.wav", "concert.mp4"]
