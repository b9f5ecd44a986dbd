"""What docs/serving.md and the Dockerfile say, against what is there."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from anymodal.cli.main import app as cli
from anymodal.serve.limits import ServeLimits
from helpers.loopback import StandingIndex, audio, noise, serving
from helpers.paths import ROOT

GUIDE = (ROOT / "docs" / "serving.md").read_text()


def options():
    """Options of `anymodal serve`."""
    shown = CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "200"}).output
    return set(re.findall(r"--[a-z-]+", shown))


def test_the_table_of_limits_is_that_of_the_server():
    table = GUIDE.partition("## Limits")[2].partition("\n\nBodies")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    assert [(name, value, meaning) for name, value, _, meaning in rows] == ServeLimits().rows()
    listed = {option.strip("`") for _, _, option, _ in rows} - {"–"}
    assert listed <= options()
    assert len(listed) == len(rows) - 2


def test_options_in_examples_exist():
    lines = [line for line in GUIDE.splitlines() if line.startswith("anymodal serve")]
    assert lines
    for line in lines:
        assert set(re.findall(r"--[a-z-]+", line)) <= options()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_commands_work(tmp_path):
    block = GUIDE.partition("## Requests")[2].partition("```sh\n")[2].partition("```")[0]
    commands = re.split(r"\n(?=curl)", block.strip())
    assert len(commands) == 6
    (tmp_path / "photo.jpg").write_bytes(noise())
    (tmp_path / "note.wav").write_bytes(audio())
    with serving(index=StandingIndex()) as served:
        for command in commands:
            here = command.replace("http://127.0.0.1:8000", served.address)
            assert here != command
            done = subprocess.run(
                ["sh", "-c", here.replace("curl", "curl -sSf", 1)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            if "-F" in command or "-d" in command:
                items = json.loads(done.stdout)["items"]
                assert [item["status"] for item in items] == [200] * len(items)
                assert items[0]["item"] == "photo.jpg"


def test_the_image_starts_the_server_as_nobody():
    text = (ROOT / "Dockerfile").read_text()
    lines = text.replace("\\\n", " ").splitlines()
    (entry,) = (
        json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith("ENTRYPOINT")
    )
    assert entry[:2] == ["anymodal", "serve"]
    assert {word for word in entry if word.startswith("--")} <= options()
    port = entry[entry.index("--port") + 1]
    assert f"EXPOSE {port}" in lines
    assert lines.index("USER anymodal") < next(
        n for n, line in enumerate(lines) if line.startswith("ENTRYPOINT")
    )
    for line in lines:
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists()
                assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.slow
def test_the_images_health_check_fails_without_a_server():
    text = (ROOT / "Dockerfile").read_text()
    script = json.loads(text.partition("CMD ")[2].partition("\n")[0])[2]
    with serving() as served:
        there = script.replace("http://127.0.0.1:8000", served.address)
        assert subprocess.run([sys.executable, "-c", there]).returncode == 0
    done = subprocess.run([sys.executable, "-c", there], capture_output=True)
    assert done.returncode != 0
