"""Engine `ray`: the local engine's files bit by bit, whoever dies on the way.

This module is also a program that gets killed: `python test_ray_engine.py MEDIA CACHE BATCHES`
embeds so many batches, then leaves its network's process id beside the cache and hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.embeddings import LocalEngine, extract, open_engine
from anymodal.embeddings.engines import Batches
from anymodal.embeddings.ray_engine import RayEngine
from anymodal.embeddings.ray_work import Network, WorkerConfig, identity_of

RATE = 8000
CLIPS = 40
SIZES = {"batch_size": 3, "chunk": 7}


class Teller:
    """A random projection of the sound; the size of its batch shows in the last digits.

    The first process that comes to batch `hangs_at` leaves its id in `mark` and hangs.
    """

    name = "teller"
    modality: Modality = "audio"
    dim = 16
    sample_rate = RATE
    image_size = None
    version = "v1"

    def __init__(self, mark: Path | None = None, hangs_at: int = 0) -> None:
        self.mark = mark
        self.left = hangs_at
        self.matrix = np.random.default_rng(0).normal(size=(RATE, self.dim)).astype(np.float32)

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        if self.mark is not None and not self.mark.exists():
            self.left -= 1
            if self.left < 0:
                written = self.mark.with_suffix(".new")
                written.write_text(str(os.getpid()))
                written.rename(self.mark)
                time.sleep(600)
        sounds = np.stack([np.pad(item, (0, RATE - len(item))) for item in batch])
        return sounds @ self.matrix + np.float32(len(batch) * 1e-3)


class Wide(Teller):
    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        return np.repeat(super().embed(batch), 2, axis=1)


class Deadly(Teller):
    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def clips():
    """Every tenth is missing, one is no sound."""
    names = [f"{i}.wav" for i in range(CLIPS)]
    names[5] = "picture.png"
    return pd.DataFrame(
        {"clip_id": [f"c{i:03d}" for i in range(CLIPS)], "audio": names, "start_s": 0.0}
    )


def run(media, cache, encoder, engine=None):
    return extract(clips(), media, encoder, cache, engine=engine, **SIZES)  # type: ignore[arg-type]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def wait_for(mark, process=None):
    """The process id that `mark` will hold."""
    deadline = time.monotonic() + 180
    while not mark.exists():
        assert process is None or process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it never got that far"
        time.sleep(0.02)
    return int(mark.read_text())


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    noise = np.random.default_rng(1)
    for i in range(CLIPS):
        if i % 10 != 9:
            soundfile.write(folder / f"{i}.wav", noise.uniform(-0.5, 0.5, RATE), RATE)
    for i in range(6):
        pixels = noise.integers(0, 256, (90 + i, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "picture.png").write_bytes((folder / "0.png").read_bytes()[:400])
    return folder


@pytest.fixture(scope="module")
def local(media, tmp_path_factory):
    """The files of the local engine."""
    folder = tmp_path_factory.mktemp("local") / "cache"
    report = run(media, folder, Teller())
    assert (report.embedded, report.failed) == (CLIPS - 5, 5)
    return contents(folder)


@pytest.fixture(scope="module")
def session():
    """An engine that starts Ray once; other engines find it running and leave it so."""
    ray = pytest.importorskip("ray")
    from ray import cloudpickle

    # the processes of Ray cannot import a test module
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with RayEngine(2) as engine:
        assert not ray.is_initialized()
        yield engine
        assert ray.is_initialized()
    assert not ray.is_initialized()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "127.0.0.1:port"])
def test_a_cluster_that_is_not_there_is_refused_at_once(media, tmp_path, monkeypatch, address):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(AnymodalError, match=rf"no Ray cluster at {address} \(RAY_ADDRESS\)"):
        run(media, tmp_path, Teller(), RayEngine())
    assert time.monotonic() - start < 20


@pytest.mark.slow
def test_same_files_as_the_local_engine(session, media, local, tmp_path, monkeypatch):
    """Also where paths are relative to a folder that Ray's processes do not stand in."""
    monkeypatch.chdir(media.parent)
    report = run(Path(media.name), tmp_path, Teller(), session)
    assert (report.embedded, report.reused, report.failed) == (CLIPS - 5, 0, 5)
    assert contents(tmp_path) == local


@pytest.mark.slow
def test_a_real_network_computes_with_the_same_threads(session, media, tmp_path):
    """The last bits of a convolution depend on their number."""
    import torch

    from anymodal.encoders import registry

    table = pd.DataFrame(
        {"clip_id": list("abcdef"), "image": [f"{i}.png" for i in range(6)], "start_s": 0.0}
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        encoder = registry.get("efficientnet_lite0", device="cpu")
        for name in ("ray", "local"):
            with open_engine(name, 2) as engine:
                extract(table, media, encoder, tmp_path / name, batch_size=4, engine=engine)
    finally:
        torch.set_num_threads(before)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
def test_a_killed_process_loses_nothing(session, media, local, tmp_path):
    mark = tmp_path / "mark"
    killed: list[int] = []

    def kill() -> None:
        killed.append(wait_for(mark))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    report = run(media, tmp_path / "cache", Teller(mark, hangs_at=4), RayEngine())
    killer.join(timeout=10)
    assert killed and killed[0] != os.getpid()
    assert (report.embedded, report.reused, report.failed) == (CLIPS - 5, 0, 5)
    assert contents(tmp_path / "cache") == local


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "change", "message"),
    [
        (Deadly, {}, r"1 process\(es\) died of the batch that begins with"),
        (Wide, {}, r"encoder teller gave an array \(3, 32\) for 3 item"),
        (Teller, {"lock": threading.Lock()}, "teller cannot travel to another process.*local"),
        (Teller, {"device": "cuda:1"}, "teller is on cuda:1.*device='cuda'"),
        (Teller, {"device": "cuda"}, "on a GPU, and Ray has none"),
    ],
)
def test_what_ray_cannot_do_is_an_error(session, media, tmp_path, encoder, change, message):
    import ray

    if change.get("device") == "cuda" and ray.cluster_resources().get("GPU", 0):
        pytest.skip("this machine has a GPU")
    given = encoder()
    vars(given).update(change)
    with pytest.raises(AnymodalError, match=message):
        run(media, tmp_path, given, RayEngine(attempts=1))


@pytest.mark.slow
def test_an_encoder_that_is_another_one_elsewhere_is_refused(session):
    import pickle

    import pyarrow as pa
    import ray

    encoder = Teller()
    content = np.frombuffer(pickle.dumps(encoder), np.uint8)
    for bytes_, identity, refusal in (
        (content, "teller of 16 values, version v2", "version v1, not teller of 16 values"),
        (content[:50], identity_of(encoder), "cannot be built in Ray's processes (UnpicklingError"),
    ):
        network = Network(ray.put(bytes_), None, WorkerConfig(identity, False, 1, 5))
        rows = pa.table({"batch": [3], "first": ["0.wav"], "items": [pickle.dumps(["broken"])]})
        (answer,) = (table.to_pylist()[0] for table in network(rows))
        assert answer["batch"] == 3 and refusal in answer["refusal"]


@pytest.mark.slow
def test_a_killed_run_resumes(media, local, tmp_path):
    """Killed in its twelfth batch: of chunks of three batches that leaves three whole at most, and
    one more may be on its way. Ray's processes end with it, and it has said nothing till then."""
    pytest.importorskip("ray")
    cache, mark = tmp_path / "cache", tmp_path / "mark"
    command = [sys.executable, __file__, str(media), str(cache), str(mark), "11"]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    network = wait_for(mark, process)
    while not list(cache.glob("teller.parts/*.npz")):
        time.sleep(0.02)
    process.kill()
    assert process.communicate()[0] == ""
    deadline = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(network, 0)
            time.sleep(0.05)
        raise AssertionError("the network's process outlives the run")
    saved = len(list(cache.glob("teller.parts/*.npz")))
    assert 1 <= saved <= 4
    report = run(media, cache, Teller())
    assert (report.embedded + report.reused, report.failed) == (CLIPS - 5, 5)
    assert report.reused >= 7 * saved - 5
    assert contents(cache) == local


def test_without_ray_it_says_what_to_install(media, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AnymodalError, match=r'pip install "anymodal\[ray\]"'):
        run(media, tmp_path, Teller(), RayEngine())
    assert list(RayEngine()(Teller(), [], 4, 8)) == []  # nothing to do starts nothing


def test_engines_go_by_name():
    with open_engine("local", 3) as engine:
        assert engine == LocalEngine(3)
    with (
        pytest.raises(AnymodalError, match="no engine 'spark'; known: local, ray"),
        open_engine("spark", 1),
    ):
        raise AssertionError


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 20))
def test_batches_are_runs_within_chunks(items, size, chunk):
    batches = Batches(items, size, chunk)
    number = 0
    for index, start in enumerate(range(0, items, chunk)):
        first = number
        stop = min(start + chunk, items)
        for begin in range(start, stop, size):
            assert batches.span(number) == (begin, min(begin + size, stop))
            number += 1
        assert batches.of_chunk(index) == range(first, number)
    assert batches.count == number


if __name__ == "__main__":
    # seen from Ray's processes this file is a module like any other
    sys.path.insert(0, str(Path(__file__).parent))
    import test_ray_engine

    folder, filled, note = map(Path, sys.argv[1:4])
    hanging = test_ray_engine.Teller(note, hangs_at=int(sys.argv[4]))
    test_ray_engine.run(folder, filled, hanging, RayEngine())
