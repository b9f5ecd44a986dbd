"""The routes, over a real port."""

import base64
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from anymodal.core.errors import AnymodalError
from anymodal.serve.answers import Answers, Health, ProblemAnswer
from anymodal.serve.limits import ServeLimits
from anymodal.serve.server import listen
from helpers.loopback import CLASSES, Standing, StandingIndex, audio, image, serving, small


@pytest.fixture(scope="module")
def server():
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.address, timeout=30) as client:
        yield client


def files(*contents):
    return [("files", (name, content)) for name, content in contents]


def as_json(*contents):
    items = [{"name": n, "content": base64.b64encode(c).decode()} for n, c in contents]
    return {"items": items}


def metrics(client):
    """All samples of `/metrics` by name and labels."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def problem(answer, status):
    """The body of a problem, checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = ProblemAnswer.model_validate(answer.json())
    assert body.status == status
    assert body.detail and "\n" not in body.detail
    return body


@pytest.mark.parametrize("way", ["multipart", "json"])
def test_files_get_answers_in_their_order(client, way):
    sent = (("a.wav", audio(loudness=0.25)), ("b.png", image("red")), ("c.wav", audio(3, 16_000)))
    body = {"files": files(*sent)} if way == "multipart" else {"json": as_json(*sent)}
    answer = client.post("/predict", **body)
    assert answer.status_code == 200
    answers = Answers.model_validate(answer.json())
    assert [(item.item, item.status) for item in answers.items] == [(name, 200) for name, _ in sent]
    first, second, third = (item.prediction for item in answers.items)
    assert first["probabilities"]["flute"] == pytest.approx(0.25, abs=1e-3)
    assert (first["modality"], first["instrument"]) == ("audio", "piano")
    assert second["probabilities"]["flute"] == 1
    assert second["modality"] == "image"
    assert [window["start_s"] for window in third["windows"]] == [0, 1, 2]
    assert tuple(answers.model.classes) == CLASSES
    assert answers.model.encoders["audio"].name == "loudness"


def test_one_bad_file_spoils_no_other(client):
    sent = (("a.wav", audio()), ("b.jpg", b"plain text"), ("empty.png", b""), ("refused", audio()))
    answer = client.post("/predict", files=files(*sent))
    assert answer.status_code == 200
    good, text, empty, refused = Answers.model_validate(answer.json()).items
    assert (good.status, good.error) == (200, None)
    assert (text.status, text.prediction) == (415, None)
    assert (empty.status, empty.error) == (415, "is empty")
    assert (refused.status, refused.error) == (422, "this one is not liked")


def test_where_no_file_gets_an_answer_the_request_fails(client):
    body = problem(client.post("/predict", files=files(("b.jpg", b"text"), ("c.wav", b"x"))), 415)
    assert [item.item for item in body.items] == ["b.jpg", "c.wav"]
    mixed = files(("b.jpg", b"text"), ("refused", audio()))
    assert "none of 2 files" in problem(client.post("/predict", files=mixed), 422).detail
    large = bytes(small().file_bytes + 1)
    assert "larger than" in problem(client.post("/predict", files=files(("l", large))), 413).detail


def test_the_message_of_a_bug_is_not_sent(client):
    answer = client.post("/predict", files=files(("bug", audio())))
    assert "a bug" not in problem(answer, 500).detail


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "Invalid JSON"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400, ""),
        ({"json": [1]}, 422, "object"),
        ({"json": {"items": [{"content": 5}]}}, 422, "items.0.content"),
        ({"json": {"items": [{"content": "aGk="}], "path": "/etc/passwd"}}, 422, "path"),
        ({"json": {"items": [{"path": "/etc/passwd"}]}}, 422, "items.0"),
        ({"json": {"items": [{"content": "not base64!"}]}}, 422, "base64"),
        ({"json": {"items": []}}, 400, "no file"),
        ({"json": {"items": [{"content": ""}] * 5}}, 400, "Too many files"),
        ({"content": b"RIFF"}, 415, "curl -F"),
        ({"json": {}, "headers": {"content-encoding": "gzip"}}, 415, "Content-Encoding"),
        ({"data": {"files": "@photo.jpg"}, "files": [("files", b"")]}, 400, "is no file"),
        ({"files": [("files", ("a", b""))] * 5}, 400, "Too many files"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(client, request_, status, words):
    assert words in problem(client.post("/predict", **request_), status).detail


def test_a_multipart_body_that_breaks_off_loses_no_file_silently(client):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'
    whole = part % (b"a.png", image()) + part % (b"b.png", image())
    kind = {"content-type": "multipart/form-data; boundary=x"}
    incomplete = client.post("/predict", content=whole, headers=kind)
    assert "last boundary" in problem(incomplete, 400).detail
    answer = client.post("/predict", content=whole + b"--x--\r\n", headers=kind)
    assert len(answer.json()["items"]) == 2


def test_names_are_labels_and_nothing_is_opened(client, tmp_path):
    (tmp_path / "there.wav").write_bytes(audio())
    names = [f"{tmp_path}/there.wav", "../../etc/passwd", "a\x07b.wav", "x" * 3000]
    answer = client.post("/predict", json=as_json(*((name, b"text") for name in names[:3])))
    items = problem(answer, 415).items
    assert [item.item for item in items] == [*names[:2], "a�b.wav"]
    answer = client.post("/predict", files=files((names[1], audio()), (names[3], audio())))
    assert [item["item"] for item in answer.json()["items"]] == [names[1], "x" * 200]


def test_other_routes_and_methods_are_problems_too(client):
    problem(client.get("/nowhere"), 404)
    problem(client.get("/predict"), 405)
    assert "--index" in problem(client.post("/search", files=files(("a", audio()))), 404).detail


def test_the_pages_describe_what_is_there(client):
    index = client.get("/").json()
    assert index["limits"]["file_bytes"] == small().file_bytes
    assert not index["search"]
    for link in index["links"].values():
        assert client.get(link).status_code in (200, 405)
    assert Health.model_validate(client.get("/healthz").json()).status == "ok"
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "POST /predict" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for loads in ("<script", "<link", "src=", "url(", "@import"):
        assert loads not in page.text
    openapi = client.get("/openapi.json").json()
    predict = openapi["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "400", "408", "413", "415", "422", "503", "504"} <= set(predict["responses"])
    assert set(predict["responses"]["413"]["content"]) == {"application/problem+json"}
    parameters = openapi["paths"]["/search"]["post"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == {"k", "modality"}
    for reference in re.findall(r'"\$ref": *"#/([^"]+)"', json.dumps(openapi)):
        reduce(dict.__getitem__, reference.split("/"), openapi)


def test_everything_is_counted():
    with serving() as served, httpx.Client(base_url=served.address) as client:
        sent = (("a.wav", audio()), ("b.png", image("black")), ("c.jpg", b"text"))
        client.post("/predict", files=files(*sent))
        client.get("/nowhere/1")
        client.get("/nowhere/2")
        counts = metrics(client)
    expected = {
        ("requests_total", "/predict", "200"): 1,
        ("requests_total", "404", "other"): 2,
        ("request_seconds_count", "/predict"): 1,
        ("items_total", "200", "audio"): 1,
        ("items_total", "200", "image"): 1,
        ("items_total", "415", "none"): 1,
        ("unknown_answers_total",): 1,
        ("decoder_kills_total", "time"): 0,
        ("decoders",): 1,
        ("decode_queue",): 0,
        ("inference_queue",): 0,
        ("requests_in_progress",): 0,
    }
    for (name, *labels), value in expected.items():
        assert counts[f"anymodal_{name}", *labels] == value, name


def test_more_requests_than_are_taken_get_503_and_all_others_an_answer():
    gate = threading.Event()
    limits = small(requests=3)
    with serving(Standing(gate=gate), limits) as served, ThreadPoolExecutor(3) as threads:
        sent = {"files": files(("a.wav", audio())), "timeout": 30}
        send = lambda: httpx.post(served.address + "/predict", **sent)  # noqa: E731
        taken = [threads.submit(send) for _ in range(3)]
        while served.app.state.service.active < 3:
            time.sleep(0.01)
        refused = send()
        assert "3 requests" in problem(refused, 503).detail
        assert refused.headers["retry-after"] == "1"
        # health is always answered
        assert httpx.get(served.address + "/healthz").json()["requests"] == 3
        gate.set()
        assert [future.result().status_code for future in taken] == [200] * 3
        assert send().status_code == 200


def test_bodies_beyond_what_is_held_get_503():
    limits = small(request_bytes=1 << 20, held_bytes=(1 << 20) + 5000)
    gate = threading.Event()
    with serving(Standing(gate=gate), limits) as served, ThreadPoolExecutor(1) as threads:
        url = served.address + "/predict"
        large = {"files": files(("a.wav", audio()), ("b", bytes(900_000)))}
        first = threads.submit(httpx.post, url, timeout=30, **large)
        while served.app.state.service.budget.bodies < 900_000:
            time.sleep(0.01)
        problem(httpx.post(url, **large), 503)
        gate.set()
        assert first.result().status_code == 200
        deadline = time.monotonic() + 10
        while served.app.state.service.budget.bodies and time.monotonic() < deadline:
            time.sleep(0.01)
        assert served.app.state.service.budget.bodies == 0


def test_an_answer_that_takes_too_long_is_504():
    gate = threading.Event()
    with serving(Standing(gate=gate), small(answer_s=0.5)) as served:
        url = served.address + "/predict"
        problem(httpx.post(url, files=files(("a.wav", audio()))), 504)
        gate.set()
        assert httpx.post(url, files=files(("a.wav", audio()))).status_code == 200


def test_what_waits_is_answered_in_one_batch():
    gate = threading.Event()
    classifier = Standing(gate=gate)
    with serving(classifier, small(files=4)) as served, ThreadPoolExecutor(1) as threads:
        sent = files(*((str(n), audio(loudness=n / 10)) for n in range(4)))
        waiting = threads.submit(httpx.post, served.address + "/predict", files=sent, timeout=30)
        while served.app.state.service._inference.waiting < 3:
            time.sleep(0.01)
        gate.set()
        items = waiting.result().json()["items"]
    assert [len(batch) for batch in classifier.seen] == [1, 3]
    shares = [item["prediction"]["probabilities"]["flute"] for item in items]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)


def test_search_gives_neighbours():
    with serving(index=StandingIndex()) as served, httpx.Client(base_url=served.address) as client:
        query = {"files": files(("q.png", image("red")))}
        answer = client.post("/search", **query)
        assert answer.status_code == 200
        (item,) = Answers.model_validate(answer.json()).items
        assert [row["path"] for row in item.neighbours] == ["a.wav", "b.jpg", "c.wav"]
        assert [row["rank"] for row in item.neighbours] == [1, 2, 3]
        assert [row["cosine"] for row in item.neighbours] == pytest.approx([1, 0.6, 0])
        (item,) = client.post("/search?k=1&modality=image", **query).json()["items"]
        assert [row["path"] for row in item["neighbours"]] == ["b.jpg"]
        for wrong in ("k=0", "k=101", "k=x", "modality=smell"):
            assert wrong[0] in problem(client.post(f"/search?{wrong}", **query), 422).detail
        two = {"files": files(("a", image()), ("b", image()))}
        assert "1 file" in problem(client.post("/search", **two), 400).detail
        problem(client.post("/search", files=files(("a.jpg", b"text"))), 415)
        assert client.get("/").json()["search"]


def test_an_error_after_the_whole_body_leaves_the_connection_usable(client):
    answers = [client.post("/predict", json={"items": []}) for _ in range(2)]
    ports = {a.extensions["network_stream"].get_extra_info("client_addr")[1] for a in answers}
    assert len(ports) == 1


def test_a_port_in_use_and_limits_that_contradict_are_named(server):
    with pytest.raises(AnymodalError, match="another --port"):
        listen("127.0.0.1", server.port)
    for wrong, message in (
        ({"request_bytes": 10, "held_bytes": 5}, "held_bytes must not be less"),
        ({"decoders": 0}, "decoders"),
        ({"nonsense": 1}, "nonsense"),
    ):
        with pytest.raises(AnymodalError, match=message):
            ServeLimits(**wrong)
