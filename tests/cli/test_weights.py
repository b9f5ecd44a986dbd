"""`anymodal weights` as a user calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from anymodal.cli import main
from anymodal.encoders import registry
from helpers.project import ROOT


@pytest.fixture
def anymodal(tmp_path, monkeypatch, capsys):
    """Function that runs a command in an empty folder with an empty cache and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ANYMODAL_OFFLINE", "1")
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", "")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["anymodal", "weights", *words])
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=printed.out, stderr=printed.err)

    return run


def test_list(anymodal, tmp_path):
    answer = anymodal("list")
    assert answer.returncode == 0, answer.stderr
    for name in registry.names():
        assert name in answer.stdout
    assert f"<cache>: {tmp_path / 'cache' / 'weights'}" in answer.stdout
    rows = json.loads(anymodal("list", "--json", "efficientnet_lite0", "openl3_image").stdout)
    assert [row["name"] for row in rows] == ["efficientnet_lite0", "openl3_image"]
    assert rows[0]["checksum"] == "pinned" and rows[0]["parameters"] == 3_371_008
    assert (rows[1]["ready"], rows[1]["size"]) == (False, None)
    assert rows[1]["urls"][0].startswith("https://")


def test_list_finds_an_installed_encoder(tmp_path):
    """A package as pip leaves it, and then a broken one."""
    site = tmp_path / "site"
    info = site / "tinypkg-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anymodal.encoders]\ntiny = tinypkg:TINY\n")
    (site / "tinypkg.py").write_text(
        "from anymodal.encoders import EncoderInfo\n"
        "TINY = EncoderInfo('tiny_histogram', 'image', 3, 'tinypkg')\n"
        "def load(info, device, weights): return 'built ' + info.name\n"
    )

    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])

    def run(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    answer = run("-m", "anymodal", "weights", "list")
    assert answer.returncode == 0 and "tiny_histogram" in answer.stdout, answer.stderr
    code = "from anymodal import encoders; print(encoders.get('tiny_histogram', 'cpu'))"
    assert run("-c", code).stdout.strip() == "built tiny_histogram"
    (site / "tinypkg.py").write_text("raise RuntimeError('is broken')")
    answer = run("-m", "anymodal", "weights", "list")
    assert answer.returncode == 0 and "musicnn_mtt" in answer.stdout
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "tinypkg:TINY are skipped: RuntimeError: is broken" in answer.stderr


def test_fetch_tries_all_and_tells_what_failed(anymodal):
    answer = anymodal("fetch", "openl3_image", "efficientnet_lite0")
    assert answer.returncode == 1
    assert "efficientnet_lite0: ready, version 6dff7e613f815a51" in answer.stdout
    assert "1 of 2 encoders fetched" in answer.stdout
    (line,) = answer.stderr.strip().splitlines()
    assert line.startswith("error: openl3_image: no weights of openl3_image: openl3_image_")
    assert anymodal("fetch", "efficientnet_lite0").returncode == 0


def test_fetch_takes_the_encoders_of_the_parameters(anymodal, tmp_path):
    answer = anymodal("fetch")
    assert answer.returncode == 1
    assert answer.stderr.strip().startswith("error: no parameters at params.yaml: ")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["embed"] |= {"audio": ["vanished"], "image": ["efficientnet_lite0"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    answer = anymodal("fetch")
    assert "no encoder 'vanished'" in answer.stderr
    assert "efficientnet_lite0: ready" in answer.stdout
    both = anymodal("fetch", "--all", "musicnn_mtt")
    assert both.returncode == 1 and "give names or --all, not both" in both.stderr


def test_verify_looks_into_the_folder_of_the_parameters(anymodal, tmp_path):
    answer = anymodal("verify", "openl3_image")
    assert answer.returncode == 0
    assert "no weights here for openl3_image" in answer.stdout
    assert "0 checked, 0 wrong" in answer.stdout
    shutil.copy(ROOT / "params.yaml", tmp_path)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["embed"]["weights_dir"] = "brought"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    answer = anymodal("verify")
    assert answer.returncode == 1 and "embed.weights_dir names" in answer.stderr
    (tmp_path / "brought").mkdir()
    wrong = tmp_path / "brought" / "openl3_image.safetensors"
    wrong.write_bytes(b"half a file")
    answer = anymodal("verify", "openl3_image", "efficientnet_lite0")
    assert answer.returncode == 1
    assert f"error: openl3_image: {wrong} is not a whole safetensors file" in answer.stderr
    assert "efficientnet_lite0: package" in answer.stdout and "2 checked, 1 wrong" in answer.stdout


def test_help_is_light():
    code = (
        "import sys, anymodal.cli.main;"
        "print([m for m in ('torch', 'pandas', 'pooch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
