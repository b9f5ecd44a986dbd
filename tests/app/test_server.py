import asyncio
import socket

import pytest
from typer.testing import CliRunner

from anymodal import cli
from anymodal.app.security import HEADERS, Guarded
from anymodal.app.server import MOMENTS, Settings
from anymodal.errors import AnymodalError

pytest.importorskip("gradio")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_mb": 0}, "--max-mb must be more than 0, at most 1024, not 0"),
        ({"max_mb": 5000}, "not 5000"),
        ({"max_mb": float("nan")}, "not nan"),
        ({"host": "256.1.1.1"}, "cannot listen on 256.1.1.1:0"),
    ],
)
def test_what_cannot_be_is_told_at_once(given, told):
    with pytest.raises(AnymodalError, match=told):
        Settings(**{"port": 0, **given})


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AnymodalError, match=f"cannot listen on 127.0.0.1:{port} .*--port"):
            Settings(port=port)


def test_limits_follow_the_settings():
    limits = Settings(port=0, max_mb=0.5).limits()
    assert (limits.file_bytes, limits.moments) == (512 * 1024, MOMENTS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--media", "nowhere"], "nowhere is not a folder"),
        (["--model", "nowhere", "--port", "0"], "no classifier at nowhere"),
    ],
)
def test_the_command_raises_what_main_tells_in_one_line(words, told):
    done = CliRunner().invoke(cli.app, ["app", *words])
    assert isinstance(done.exception, AnymodalError)
    assert told in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_headers_are_added_to_answers_alone(kind):
    sent = []

    async def inner(scope, receive, send):
        await send({"type": f"{kind}.response.start", "headers": [(b"x", b"y")]})
        await send({"type": f"{kind}.response.body"})

    async def send(message):
        sent.append(message)

    asyncio.run(Guarded(inner)({"type": kind}, None, send))
    expected = [(b"x", b"y"), *(HEADERS if kind == "http" else ())]
    assert sent[0]["headers"] == expected
    assert "headers" not in sent[1]
