"""The commands in README.md and docs/: each exists with its options, and those of the guide to own
data run in its order."""

import re
import shlex
import shutil
import signal
import socket
import time
import urllib.request

import numpy as np
import pytest
import soundfile
import typer
from PIL import Image

from anymodal.cli.main import app
from anymodal.pipeline.runner import STAGES
from helpers.project import ROOT, Project

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CLASSES = ("flute", "drums", "violin")


def blocks(text, languages="bash|sh"):
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text):
    """Lines of shell blocks, continued ones joined, without comments."""
    joined = "\n".join(blocks(text)).replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def ours():
    """Every `anymodal …` of the docs, with the page it is on."""
    return sorted(
        {
            (page.name, part.strip())
            for page in PAGES
            for line in commands(page.read_text(encoding="utf-8"))
            for part in re.split(r"\s*(?:;|&&|\|)\s*", line)
            if part.startswith("anymodal ")
        }
    )


def test_there_are_commands():
    assert len(ours()) > 20


@pytest.mark.parametrize(("page", "line"), ours(), ids=lambda text: text.replace(" ", "_"))
def test_a_command_and_its_options_exist(page, line):
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: no command {words[0]} in: {line}"
        command = command.commands[words.pop(0)]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known | {"--help", "--version"}, f"{page}: {line}"


def make_media(folder):
    """Thirty audio files and images of each of three classes, which are easy to tell apart."""
    rng = np.random.default_rng(0)
    time_s = np.arange(16_000) / 16_000
    for number, name in enumerate(CLASSES):
        (folder / "audio" / name).mkdir(parents=True)
        (folder / "images" / name).mkdir(parents=True)
        for take in range(30):
            tone = np.sin(2 * np.pi * (180 + 400 * number) * (1 + 0.01 * take) * time_s)
            audio = 0.3 * tone + 0.01 * (1 + take) * rng.standard_normal(len(time_s))
            file = {"flute": "solo.wav", "drums": "fill.ogg"}.get(name, "") if take == 0 else ""
            path = folder / "audio" / name / (file or f"take{take}.wav")
            soundfile.write(path, audio.clip(-1, 1), 16_000)
            # coarse blocks at random: no two are duplicates; the colour is the class
            pattern = np.kron(rng.integers(0, 2, (8, 8)), np.ones((12, 12)))[:, :, None]
            image = 30 + pattern * (50 + 150 * np.eye(3)[number])
            file = {"flute": "stage.jpg", "drums": "kit.png"}.get(name, "") if take == 0 else ""
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
                folder / "images" / name / (file or f"view{take}.png")
            )


@pytest.mark.slow
def test_the_guide_to_own_data_runs(tmp_path):
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    assert "source: folder\n  path: my-media" in page
    # small: what is shown is that the commands work, on made-up media
    project = Project.copy(
        tmp_path / "project",
        dataset__source="folder", dataset__path="my-media", dataset__windows=1,
        dataset__translation=0.5, dataset__retrieval=0.1, check__min_per_class=2,
        embed__audio=["musicnn_mtt"], embed__image=["efficientnet_lite0"],
        translate__seeds=1, translate__max_epochs=20, classify__seeds=1, classify__bootstrap=200,
        mixing__points=[0], mixing__draws=1, cross_source__enabled=False,
        tracking__register_models=False,
    )  # fmt: skip
    make_media(project.folder / "my-media")
    lines = commands(page)
    assert len(lines) == 10, lines
    (port,) = {re.search(r"--port (\d+)", line)[1] for line in lines if " serve " in line}
    printed = {}
    server = None
    try:
        for line in lines:
            words = shlex.split(line)
            if words[1] in ("serve", "app"):
                free = _free_port()
                words[words.index("--port") + 1] = str(free)
                started = project.start(*words)
                if words[1] == "serve":
                    server, port_of_server = started, free
                else:
                    _answers(f"http://127.0.0.1:{free}/", started)
                    _stop(started)
            elif words[0] == "curl":
                address = f"http://127.0.0.1:{port_of_server}"
                _answers(f"{address}/healthz", server)
                if shutil.which("curl") is None:
                    continue
                words = [word.replace(f"http://127.0.0.1:{port}", address) for word in words]
                printed["curl"] = project.run(*words, "--fail").stdout
            else:
                printed[line] = project.run(*words).stdout
    finally:
        if server is not None:
            _stop(server)
    assert "0.333" in printed["anymodal results"]
    assert "flute" in next(text for line, text in printed.items() if "search" in line)
    assert "curl" not in printed or '"drums"' in printed["curl"]
    runs = project.runs()
    (parent,) = (run for run in runs if run.data.tags["anymodal.stage"] == "pipeline")
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["anymodal.stage"] for run in children} == set(STAGES)
    for name in ("timeline.csv", "timeline.png", "exported/onnx.json"):
        assert (project.folder / name).stat().st_size > 100, name


@pytest.mark.slow
def test_the_reference_of_the_api_is_made_from_docstrings(tmp_path):
    pdoc = pytest.importorskip("pdoc")
    pdoc.render.configure(docformat="numpy")
    pdoc.pdoc("anymodal.classifier.model", "anymodal.encoders.base", output_directory=tmp_path)
    text = (tmp_path / "anymodal" / "classifier" / "model.html").read_text(encoding="utf-8")
    assert "ModalityAgnosticClassifier.load" in text
    assert (tmp_path / "anymodal" / "encoders" / "base.html").is_file()


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _answers(address, process, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"it ended with {process.returncode}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer at {address}")


def _stop(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
