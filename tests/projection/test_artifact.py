"""Saving and loading both kinds, and every way a folder can be wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.projection import load_projection
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.base import Projection
from anymodal.projection.pca import fit_pca
from anymodal.projection.translation import Translation

ORIGIN = Origin(
    EncoderRef("musicnn_mtt", "a1", 6),
    EncoderRef("efficientnet_lite0", "b2", 9),
    "class",
    3,
    {"margin": 1.0, "hidden": 16, "depth": 2, "activation": "elu"},
)
RNG = np.random.default_rng(0)
AUDIO, IMAGE = RNG.normal(size=(20, 6)), RNG.normal(size=(20, 9))


def make(kind: str) -> Projection:
    projection: Projection
    if kind == "pca":
        projection = fit_pca(AUDIO, IMAGE, dim=5)
    else:
        projection = Translation(6, 9, hidden=16, dim=5, seed=1).eval()
    projection.origin = ORIGIN
    return projection


@pytest.fixture(params=["translation", "pca"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Projection, Path]:
    projection = make(request.param)
    projection.save(tmp_path / "out")
    return projection, tmp_path / "out"


def test_loading_gives_back_the_same(saved: tuple[Projection, Path]) -> None:
    projection, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == ["projection.json", "projection.safetensors"]
    loaded = load_projection(folder)
    assert type(loaded) is type(projection)
    assert (loaded.kind, loaded.dim, dict(loaded.dims)) == (
        projection.kind,
        5,
        {"audio": 6, "image": 9},
    )
    assert loaded.origin == ORIGIN
    np.testing.assert_array_equal(
        loaded.project("audio", AUDIO), projection.project("audio", AUDIO)
    )
    np.testing.assert_array_equal(
        loaded.project("image", IMAGE), projection.project("image", IMAGE)
    )

    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    loaded.save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    header = json.loads((folder / "projection.json").read_text())
    assert header["encoders"]["audio"] == {"name": "musicnn_mtt", "version": "a1", "dim": 6}
    assert header["encoders"]["image"] == {"name": "efficientnet_lite0", "version": "b2", "dim": 9}
    assert (header["pairing"], header["seed"], header["dim"]) == ("class", 3, 5)
    assert header["settings"] == ORIGIN.settings


@pytest.mark.parametrize(
    "options", [{"depth": 1}, {"depth": 3, "activation": "gelu"}, {"activation": "relu"}]
)
def test_other_networks_are_loaded_as_they_were_saved(options: dict, tmp_path: Path) -> None:
    translation = Translation(6, 9, 16, 5, **options).eval()
    translation.origin = ORIGIN
    translation.save(tmp_path)
    loaded = load_projection(tmp_path)
    expected = translation.project("audio", AUDIO)
    np.testing.assert_array_equal(loaded.project("audio", AUDIO), expected)


@pytest.mark.parametrize("settings", [{"depth": 3}, {"depth": "deep"}, {"activation": "swish"}])
def test_settings_that_do_not_fit_the_weights_are_refused(settings: dict, tmp_path: Path) -> None:
    make("translation").save(tmp_path)
    edit(tmp_path, settings=settings)
    with pytest.raises(AnymodalError, match="other weights"):
        load_projection(tmp_path)


def test_encoder_versions(saved: tuple[Projection, Path]) -> None:
    folder = saved[1]
    load_projection(folder, {"audio": "a1", "image": "b2"})
    load_projection(folder, {"image": "b2"})
    with pytest.raises(AnymodalError, match=r"image from efficientnet_lite0 version b2, not c"):
        load_projection(folder, {"audio": "a1", "image": "c"})
    with pytest.raises(AnymodalError, match=r"musicnn_mtt version a1, not b2"):
        load_projection(folder, {"audio": "b2"})


def test_overwriting_with_another_kind(tmp_path: Path) -> None:
    make("translation").save(tmp_path)
    make("pca").save(tmp_path)
    assert load_projection(tmp_path).kind == "pca"


def test_a_write_cut_short_between_the_files_is_refused(tmp_path: Path) -> None:
    make("pca").save(tmp_path)
    header = (tmp_path / "projection.json").read_bytes()
    make("translation").save(tmp_path)
    (tmp_path / "projection.json").write_bytes(header)
    with pytest.raises(AnymodalError, match="does not belong"):
        load_projection(tmp_path)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "projection.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_broken_folders(saved: tuple[Projection, Path], tmp_path: Path) -> None:
    projection, folder = saved
    header, weights = folder / "projection.json", folder / "projection.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(AnymodalError, match=message) as caught:
            load_projection(folder)
        assert "\n" not in str(caught.value)
        projection.save(folder)

    weights.write_bytes(weights.read_bytes()[:-7])
    refused("does not belong")
    weights.unlink()
    refused("no readable projection.safetensors")
    header.write_bytes(b"\xff\xfe\x00")
    refused("not valid JSON")
    header.write_text("[1]")
    refused("projection.json: .* run `anymodal translate` again")
    edit(folder, encoders={"audio": {"name": "x"}})
    refused("encoders.audio.version")
    edit(folder, format=99)
    refused("format: ")
    edit(folder, kind="cca")
    refused("kind: ")
    edit(folder, dim=7)
    refused("other (weights|arrays)")
    edit(folder, dim="many")
    refused("dim: ")
    edit(folder, kind="pca" if projection.kind == "translation" else "translation")
    refused("other (weights|arrays)")
    header.unlink()
    refused("projection.json; run `anymodal translate` first")
    with pytest.raises(AnymodalError, match="projection.json; run"):
        load_projection(tmp_path / "nowhere")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    translation = make("translation")
    assert isinstance(translation, Translation)
    translation.branches["audio"].out.bias.data[0] = float("nan")
    translation.save(tmp_path)
    with pytest.raises(AnymodalError, match="non-finite"):
        load_projection(tmp_path)


def test_saving_needs_a_fitting_origin(tmp_path: Path) -> None:
    projection = make("pca")
    projection.origin = None
    with pytest.raises(AnymodalError, match="origin"):
        projection.save(tmp_path)
    projection.origin = dataclasses.replace(ORIGIN, audio=EncoderRef("vggish", "v", 128))
    with pytest.raises(AnymodalError, match="128"):
        projection.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_package_imports_without_torch() -> None:
    code = "import sys, anymodal.projection; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pca_loads_without_torch(tmp_path: Path) -> None:
    make("pca").save(tmp_path)
    code = (
        "import sys; from anymodal.projection import load_projection; "
        "load_projection(sys.argv[1]); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 0
