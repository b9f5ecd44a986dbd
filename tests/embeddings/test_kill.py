"""A run that is killed with SIGKILL, and the run after it.

This module is also the program that gets killed: `python test_kill.py MEDIA CACHE BATCHES` embeds
so many batches, then leaves a file `hanging` beside the cache and hangs.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.embeddings import extract
from anymodal.embeddings.cache import EmbeddingCache

CLIPS = 60
RATE = 8000


class Hanging:
    """A random projection of the sound; the size of its batch shows in the last digits."""

    name = "hanging"
    modality: Modality = "audio"
    dim = 16
    sample_rate = RATE
    image_size = None
    version = "v1"

    def __init__(self, batches: int, mark: Path, pause: float = 0) -> None:
        self.batches = batches
        self.mark = mark
        self.pause = pause
        self.matrix = np.random.default_rng(0).normal(size=(RATE, self.dim)).astype(np.float32)

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self.batches -= 1
        if self.batches < 0:
            self.mark.touch()
            time.sleep(600)
        time.sleep(self.pause)
        sounds = np.stack([np.pad(item, (0, RATE - len(item))) for item in batch])
        return sounds @ self.matrix + np.float32(len(batch) * 1e-3)


def run(media, cache, batches=1000, pause=0):
    """Embed all clips, 3 a batch and 7 a chunk; every tenth is missing."""
    clips = pd.DataFrame(
        {
            "clip_id": [f"c{i:03d}" for i in range(CLIPS)],
            "audio": [f"{i}.wav" for i in range(CLIPS)],
            "image": [None] * CLIPS,
            "start_s": [0.0] * CLIPS,
        }
    )
    encoder = Hanging(batches, cache.parent / "hanging", pause)
    return extract(clips, media, encoder, cache, batch_size=3, workers=2, chunk=7)


def start(media, cache, *more):
    return subprocess.Popen([sys.executable, __file__, str(media), str(cache), *map(str, more)])


def wait_until_it_hangs(process, cache):
    mark = cache.parent / "hanging"
    deadline = time.monotonic() + 120
    while not mark.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it never got that far"
        time.sleep(0.01)
    mark.unlink()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    noise = np.random.default_rng(1)
    for i in range(CLIPS):
        if i % 10 != 9:
            soundfile.write(folder / f"{i}.wav", noise.uniform(-0.5, 0.5, RATE), RATE)
    return folder


@pytest.fixture(scope="module")
def whole(media, tmp_path_factory):
    """The files of an undisturbed run."""
    cache = tmp_path_factory.mktemp("whole") / "cache"
    report = run(media, cache)
    assert (report.embedded, report.reused, report.failed) == (54, 0, 6)
    return contents(cache)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_kill_and_rerun_equals_an_undisturbed_run(media, whole, tmp_path):
    """A chunk is three batches: a kill in the eighth leaves two chunks, one in the fifth one."""
    cut = tmp_path / "cut"
    for batches, saved in ((7, 2), (4, 3)):
        with start(media, cut, batches) as process:
            wait_until_it_hangs(process, cut)
            # while it lives a second run is refused
            with pytest.raises(AnymodalError, match="another process is writing the hanging embe"):
                run(media, cut)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert len(list(cut.glob("hanging.parts/*.npz"))) == saved
        with pytest.raises(AnymodalError, match="no hanging embeddings"):
            EmbeddingCache(cut).open("hanging")
    report = run(media, cut)
    kept = sum(i % 10 != 9 for i in range(3 * 7))
    assert (report.embedded, report.reused, report.failed) == (54 - kept, kept, 6)
    assert contents(cut) == whole


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(media, whole, tmp_path):
    """Wherever the signal falls: in decoding, in computing, in saving, in merging."""
    cut = tmp_path / "cut"
    for delay in np.random.default_rng(2).uniform(0.5, 1.5, size=3):
        with start(media, cut, 1000, 0.02) as process:
            time.sleep(delay)
            process.kill()
    run(media, cut)
    assert contents(cut) == whole


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:]))
