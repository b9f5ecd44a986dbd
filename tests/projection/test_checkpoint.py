"""A training killed with SIGKILL resumes to the weights of the uninterrupted one, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import hashlib, os, signal, sys, time
import numpy as np, torch
from anymodal.config.params import TranslateParams
from anymodal.data.pairing import Pairs
from anymodal.projection.training import train_translation

torch.set_num_threads(1)
mode, checkpoint = sys.argv[1], sys.argv[2]
rng = np.random.default_rng(0)
audio = rng.normal(size=(300, 12)).astype(np.float32)
image = (audio @ rng.normal(size=(12, 20)) + rng.normal(size=(300, 20))).astype(np.float32)
train, valid = np.arange(240), np.arange(240, 300)

def on_epoch(entry):
    print(entry["epoch"], flush=True)
    if mode == "suicide" and entry["epoch"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "slow":
        time.sleep(0.05)

def pairs(rng):
    rows = rng.permutation(train)
    return Pairs(rows, rows, rows)

result = train_translation(
    audio, image, pairs, Pairs(valid, valid, valid),
    TranslateParams(hidden=32, dim=16, batch_size=64, max_epochs=12, patience=12, device="cpu"),
    seed=5, checkpoint=None if mode == "whole" else __import__("pathlib").Path(checkpoint),
    on_epoch=on_epoch, checkpoint_seconds=0,
)
state = result.translation.state_dict()
digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in state.values()))
print(result.best_epoch, len(result.history), digest.hexdigest())
"""


def run(mode: str, checkpoint: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, mode, str(checkpoint)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = run("whole", tmp_path_factory.mktemp("whole") / "none")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_killed_between_epochs(whole: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    killed = run("suicide", checkpoint)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.split() == ["1", "2", "3", "4"]
    assert checkpoint.exists()
    resumed = run("plain", checkpoint)
    assert resumed.returncode == 0, resumed.stderr
    *epochs, last = resumed.stdout.splitlines()
    assert epochs == [str(epoch) for epoch in range(5, 13)]
    assert last == whole
    assert not checkpoint.exists()


def test_killed_at_any_moment(whole: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    command = [sys.executable, "-c", SCRIPT, "slow", str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(0.04)
        process.kill()
    resumed = run("plain", checkpoint)
    assert resumed.returncode == 0, resumed.stderr
    *rest, last = resumed.stdout.splitlines()
    assert last == whole
    assert 0 < len(rest) <= 10
