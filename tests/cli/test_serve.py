"""`anymodal serve` as a process: a real port, real signals, and the real classifier."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from anymodal.cli.main import app
from anymodal.core.errors import AnymodalError
from helpers.loopback import audio, image, noise
from helpers.paths import TESTS

STANDING = """
import sys, threading, time
from helpers.loopback import Standing, small
from anymodal.serve.app import create_app
from anymodal.serve.server import make_server, run

class Slow(Standing):
    def predict_windows(self, items):
        time.sleep(float(sys.argv[1]))
        return super().predict_windows(items)

limits = small(stop_s=float(sys.argv[2]))
app = create_app(Slow(), limits=limits)
run(make_server(app, limits), port=0, on_start=lambda a: print("at", a, flush=True))
print("over", flush=True)
"""


@contextmanager
def process(*words):
    """A server as a process, and its address."""
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    started = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    try:
        line = started.stdout.readline()
        assert " at http://" in f" {line}", line + started.stderr.read()
        yield started, line.split()[-1]
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


def decoders_of(pid):
    """Processes whose parent that is."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [int(word) for word in listed.stdout.split()]


@contextmanager
def request_in_progress(address):
    """A request that the server has admitted; the list gets its response."""
    responses = []

    def post():
        files = {"files": ("a", audio())}
        responses.append(httpx.post(address + "/predict", files=files, timeout=30))

    request = threading.Thread(target=post)
    request.start()
    while httpx.get(address + "/healthz").json()["requests"] == 0:
        time.sleep(0.01)
    yield responses
    request.join(20)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_after_the_requests_in_progress(number):
    with process(sys.executable, "-c", STANDING, "0.5", "20") as (server, address):
        decoders = decoders_of(server.pid)
        with request_in_progress(address) as responses:
            server.send_signal(number)
        out, err = server.communicate(timeout=20)
        assert responses[0].status_code == 200
        assert server.returncode == 0, err
        assert out.strip() == "over"
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)
        assert decoders
        assert not any(_runs(pid) for pid in decoders)


@pytest.mark.slow
def test_requests_that_take_longer_than_allowed_are_cut_off():
    with process(sys.executable, "-c", STANDING, "3.0", "0.2") as (server, address):
        with request_in_progress(address) as responses:
            server.terminate()
        _, err = server.communicate(timeout=20)
        assert responses[0].status_code == 503
        assert "being stopped" in responses[0].json()["detail"]
        assert server.returncode == 1
        assert "1 request(s) were cut off" in err


@pytest.mark.slow
def test_decoders_end_when_the_server_is_killed():
    with process(sys.executable, "-c", STANDING, "0", "1") as (server, _):
        decoders = decoders_of(server.pid)
        assert decoders
        server.kill()
        server.wait()
        deadline = time.monotonic() + 10
        while any(_runs(pid) for pid in decoders) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(_runs(pid) for pid in decoders)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "{tmp}/none"], "no classifier at"),
        (["--decoders", "0"], "limits of the server: decoders"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path, words, message):
    words = [word.format(tmp=tmp_path) for word in words]
    done = CliRunner().invoke(app, ["serve", *words])
    assert done.exit_code == 1 and isinstance(done.exception, AnymodalError)
    assert message in str(done.exception)


@pytest.mark.slow
def test_the_real_classifier_over_a_real_port(finished, tmp_path):
    """Answers, search and the end, against the same classifier in this process."""
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.search import Index, update

    folder = finished.folder / "artifacts/classifier"
    classifier = ModalityAgnosticClassifier.load(folder, device="cpu")
    (tmp_path / "media").mkdir()
    contents = {"red.png": image("red"), "noise.jpg": noise(), "tone.wav": audio(2.5, 16_000)}
    for name, content in contents.items():
        (tmp_path / "media" / name).write_bytes(content)
    update(tmp_path / "media", tmp_path / "index", classifier)
    expected = classifier.predict(list(contents.values()))
    anymodal = str(Path(sys.executable).parent / "anymodal")
    words = ("--model", str(folder), "--index", str(tmp_path / "index"), "--port", "0")
    with process(anymodal, "serve", *words) as (server, address):
        assert "/docs" in server.stdout.readline()
        sent = [("files", one) for one in contents.items()]
        answer = httpx.post(address + "/predict", files=sent, timeout=60)
        assert answer.status_code == 200
        for item, mine in zip(answer.json()["items"], expected, strict=True):
            prediction = item["prediction"]
            assert prediction["instrument"] == mine.answer
            assert prediction["modality"] == mine.modality
            probabilities = [prediction["probabilities"][name] for name in classifier.classes]
            assert np.allclose(probabilities, mine.probabilities, atol=0.02)
        for modality in ("audio", "image"):
            query = {"files": ("q", contents["tone.wav"])}
            url = f"{address}/search?k=2&modality={modality}"
            (item,) = httpx.post(url, files=query, timeout=60).json()["items"]
            hits = Index.open(tmp_path / "index").find(
                classifier, contents["tone.wav"], 2, modality
            )
            assert [one["path"] for one in item["neighbours"]] == [hit.path for hit in hits]
            cosines = [one["cosine"] for one in item["neighbours"]]
            assert cosines == pytest.approx([hit.cosine for hit in hits], abs=1e-3)
        assert httpx.get(address + "/").json()["model"]["name"] == "classifier"
        server.terminate()
        server.communicate(timeout=30)
        assert server.returncode == 0
