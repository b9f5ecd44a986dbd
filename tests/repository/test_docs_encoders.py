"""The page about encoders tells what is: its table is the registry, its code runs."""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from urllib.parse import urlsplit

import numpy as np
import pytest

from anymodal.encoders import guarantees, registry
from anymodal.encoders.weights import inventory
from helpers.project import ROOT

PAGE = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def row(info: registry.EncoderInfo) -> str:
    """An encoder's line of the table."""
    source = inventory.source(info)
    if info.files:
        source = ", ".join(f"[{urlsplit(file.url).hostname}]({file.url})" for file in info.files)
    if info.extra:
        source += f"; extra `{info.extra}`"
    cells = (
        f"`{info.name}`", info.modality, f"{info.dim:,}", f"{info.parameters:,}", source,
        info.licence, info.pooling,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def test_the_table_is_the_registry():
    written = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert written == [row(registry.info(name)) for name in registry.names()]


@pytest.fixture
def session(tmp_path, monkeypatch):
    """An empty folder to work and import in; what is registered is forgotten after the test."""
    monkeypatch.setattr(registry, "_session", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_example_runs(session, capsys):
    module, script = blocks("python")
    name = re.match(r"# (\w+\.py)\n", module)[1]
    (session / name).write_text(module)
    space: dict = {}
    exec(compile(script, "docs/encoders.md", "exec"), space)
    assert capsys.readouterr().out == "8 (8, 48)\n"
    # sounds of a class are nearer to one another than to those of the other class
    matrix, classes = space["embeddings"].matrix, space["clips"]["instrument"].to_numpy()
    away = np.linalg.norm(matrix[:, None] - matrix[None], axis=2)
    same = classes[:, None] == classes[None]
    assert len(set(classes)) == 2 and away[same].max() < away[~same].min()


def test_the_example_keeps_its_weights(session):
    module, _ = blocks("python")
    (session / "band_levels.py").write_text(module)
    import band_levels  # type: ignore[import-not-found]

    registry.register(band_levels.INFO)
    encoder = registry.get("band_levels")
    encoder.save_weights(session / "saved.safetensors")
    again = registry.get("band_levels", weights=session / "saved.safetensors")
    assert again.version == encoder.version
    item = guarantees.items(encoder)[:1]
    np.testing.assert_array_equal(again.embed(item), encoder.embed(item))
    # the filters peak at rising frequencies
    peaks = encoder._filters.argmax(axis=1)
    assert (np.diff(peaks) >= 0).all() and encoder._filters.max() <= 1


def test_the_entry_point_is_that_of_the_example():
    (toml,) = blocks("toml")
    points = tomllib.loads(toml)["project"]["entry-points"]["anymodal.encoders"]
    assert points == {"band_levels": "band_levels:INFO"}


def test_commands_exist():
    from anymodal.cli.weights import app

    names = {c.name or c.callback.__name__ for c in app.registered_commands}
    named = set(re.findall(r"anymodal weights (\w+)", PAGE))
    assert named == names == {"list", "fetch", "verify"}
