import socket

import pytest
from typer.testing import CliRunner

from anymodal.app.server import WINDOWS, Settings
from anymodal.cli import main
from anymodal.core.errors import AnymodalError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_mb": 0}, "--max-mb must be more than 0, at most 1024, not 0"),
        ({"max_mb": 5000}, "not 5000"),
        ({"max_mb": float("nan")}, "not nan"),
        ({"host": "256.1.1.1"}, "cannot listen on 256.1.1.1:0"),
    ],
)
def test_invalid_settings(options, message):
    with pytest.raises(AnymodalError, match=message):
        Settings(**{"port": 0, **options})


def test_limits_follow_the_settings_and_a_port_that_is_taken_is_named():
    limits = Settings(port=0, max_mb=0.5).limits()
    assert (limits.file_bytes, limits.windows) == (512 * 1024, WINDOWS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(AnymodalError, match=f"cannot listen on 127.0.0.1:{port} .*--port"):
            Settings(port=port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--media", "nowhere"], "nowhere is not a folder"),
        (["--model", "nowhere", "--port", "0"], "no classifier at nowhere"),
    ],
)
def test_the_command_fails_in_one_line(options, message):
    done = CliRunner().invoke(main.app, ["app", *options])
    assert isinstance(done.exception, AnymodalError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
