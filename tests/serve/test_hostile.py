"""Untrusted input: the server answers in one line, and goes on."""

import io
import socket
import struct
import time
import zipfile
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.serve.answers import ProblemAnswer
from anymodal.serve.app import create_app
from anymodal.serve.server import make_server, run
from helpers.encoded import noise_video
from helpers.loopback import Standing, audio, image, noise, png_of, serving, small


@pytest.fixture(scope="module")
def server():
    with serving(limits=small(decode_s=4.0, request_bytes=4 << 20)) as served:
        yield served


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.address, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def goes_on(client):
    """After everything that is sent here, a good file gets its answer."""
    yield
    answer = client.post("/predict", files={"files": ("good.wav", audio())})
    assert answer.status_code == 200
    assert client.get("/healthz").json()["status"] == "ok"


def send(client, content, name="it"):
    began = time.perf_counter()
    answer = client.post("/predict", files={"files": (name, content)})
    assert time.perf_counter() - began < 15
    return answer


def silence():
    """Half an hour of it in a FLAC of a few kilobytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(8000 * 1800, np.int16), 8000, format="FLAC")
    return buffer.getvalue()


def wav_claiming(size):
    """A WAV of half a second whose header claims `size` bytes."""
    content = bytearray(audio(0.5))
    struct.pack_into("<I", content, 4, size)
    place = content.index(b"data") + 4
    struct.pack_into("<I", content, place, size)
    return bytes(content)


def gif(frames):
    buffer = io.BytesIO()
    images = [Image.new("P", (300, 300), n % 256) for n in range(frames)]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:])
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("../../photo.png", image())
    return buffer.getvalue()


REFUSED = {
    "truncated JPEG": (lambda: noise()[:9000], 422),
    "truncated WAV": (lambda: audio()[:30], 415),
    "truncated MP4": (lambda: noise_video("mp4", "mpeg4", "aac")[:3000], 415),
    "PNG of 60,000 x 60,000 claimed": (lambda: png_of(60_000, 60_000, 100), 415),
    "PNG of 20,000 x 20,000, packed": (lambda: png_of(20_000, 20_000, 20_000), 415),
    "PNG below the limit of pixels": (lambda: png_of(9_900, 9_900, 9_900), 422),
    "half an hour of silence": (silence, 422),
    "text called an image": (lambda: b"this is text\n" * 1000, 415),
    "zip": (zipped, 415),
    "zeros": (lambda: bytes(1 << 20), 415),
    "SVG": (lambda: b'<svg><image href="file:///etc/passwd"/></svg>', 415),
}


SLOW = [name for name in REFUSED if "packed" in name or "below" in name or "hour" in name]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in REFUSED]
)
def test_it_is_refused_in_one_line(client, name):
    make, status = REFUSED[name]
    content = make()
    assert len(content) < small().file_bytes
    answer = send(client, content)
    assert answer.status_code == status, answer.text
    detail = ProblemAnswer.model_validate(answer.json()).detail
    assert detail and "\n" not in detail and len(detail) < 300
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("name", "content", "modality"),
    [
        ("WAV that claims 4 GB", wav_claiming(0xFFFFFFFE), "audio"),
        ("audio called an image", audio(), "audio"),
        ("GIF of 400 frames", gif(400), "image"),
        ("JPEG with a tail", image(format="JPEG") + b"PK\x03\x04" * 1000, "image"),
    ],
)
def test_it_is_answered_for_what_it_is(client, name, content, modality):
    answer = send(client, content, "it.jpg")
    assert answer.status_code == 200, answer.text
    prediction = answer.json()["items"][0]["prediction"]
    assert prediction["modality"] == modality
    assert len(prediction["windows"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "[playlist]\nFile1={}\n",
        "file://{}",
        "{}",
    ],
)
def test_references_to_files_are_not_followed(client, tmp_path, text):
    (tmp_path / "there.wav").write_bytes(audio())
    answer = send(client, text.format(tmp_path / "there.wav").encode())
    assert answer.status_code == 415, answer.text


@pytest.mark.slow
def test_the_decoder_that_is_lost_is_counted():
    limits = small(decode_s=0.8)
    with serving(limits=limits, decode="helpers.odd_decoders:by_order") as served:
        sent = [("files", (order, order.encode())) for order in ("hang", "eat", "crash", "plain")]
        client = httpx.Client(base_url=served.address, timeout=30)
        answer = client.post("/predict", files=sent)
        assert [item["status"] for item in answer.json()["items"]] == [422, 422, 422, 200]
        text = client.get("/metrics").text
        for reason in ("time", "memory", "crash"):
            assert f'anymodal_decoder_kills_total{{reason="{reason}"}} 1.0' in text
        assert client.get("/healthz").json()["decoders"] == 1


def test_many_parts_are_refused(client):
    fields = {f"f{n}": "x" for n in range(2000)}
    answer = client.post("/predict", data=fields, files={"files": ("a", audio())})
    assert answer.status_code == 400


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/json"])
def test_bodies_that_are_too_large_get_413_though_they_do_not_say_so(client, kind):
    def blocks():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(500):
            yield bytes(1 << 16)

    answer = client.post("/predict", content=blocks(), headers={"content-type": kind})
    assert answer.status_code == 413
    assert "4,194,304 bytes" in answer.json()["detail"]


@contextmanager
def posting(server, header, body=b""):
    """A connection with the beginning of a JSON request."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}{header}\r\n\r\n".encode() + body)
        yield connection


def test_bodies_that_say_so_get_413_unread(server):
    with posting(server, "Content-Length: 99999999999") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_an_endless_body_is_cut_off(server):
    with posting(server, "Transfer-Encoding: chunked") as connection:
        chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        began, sent = time.perf_counter(), 0
        with pytest.raises(OSError):
            while time.perf_counter() - began < 30:
                connection.sendall(chunk)
                sent += len(chunk)
        assert sent < 200 << 20
    assert server.app.state.service.budget.bodies == 0
    assert server.app.state.service.active == 0


def test_a_body_that_arrives_slowly_gets_408():
    with serving(limits=small(receive_s=0.4)) as served:
        with posting(served, "Content-Length: 1000", b"{") as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        assert served.app.state.service.active == 0


def test_a_client_that_disconnects_is_no_trouble(server):
    with posting(server, "Content-Length: 1000", b"{"):
        pass
    deadline = time.monotonic() + 10
    while server.app.state.service.active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.app.state.service.active == 0


def test_a_server_that_cannot_start_its_decoders_says_so():
    limits = small()
    app = create_app(Standing(), limits=limits, decode="helpers.odd_decoders:nothing")
    with pytest.raises(AnymodalError, match="decoder process ends at once"):
        run(make_server(app, limits), port=0)
