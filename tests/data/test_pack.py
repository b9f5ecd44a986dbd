"""Packs are read as they were written, and refused when not whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import validate
from anymodal.data.datasheet import datasheet, media_sources
from anymodal.data.pack import read_pack
from helpers.packs import build, write_media


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    build(write_media(folder / "media"), folder / "data")
    return folder / "data"


@pytest.fixture
def folder(built, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "data"))


def change(folder: Path, **values) -> None:
    info = json.loads((folder / "pack.json").read_text()) | values
    (folder / "pack.json").write_text(json.dumps(info))


def test_a_pack_says_what_it_holds(built):
    pack = read_pack(built)
    info = pack.info
    assert info.model_dump(mode="json") == json.loads((built / "pack.json").read_text())
    validate(pack.clips)
    assert pack.clips["subset"].isna().all() and pack.clips["split"].isna().all()
    assert (info.name, info.description, info.pairing) == ("toy pack", "Noise, twice.", "class")
    assert info.windows == 2 and len(info.skipped) == 2
    assert info.made["command"] == "anymodal pack MEDIA --name 'toy pack'"
    assert info.counts == {
        "clips": len(pack.clips),
        "groups": 14,
        "audio": {"clips": 16, "files": 8},
        "image": {"clips": 6, "files": 6},
        "classes": {name: {"audio": 8, "image": 3} for name in ("banjo", "violin")},
        "sources": {
            "kaggle30": {"audio": 0, "image": 6},
            "mystery": {"audio": 8, "image": 0},
            "philharmonia": {"audio": 8, "image": 0},
        },
    }
    assert tuple(info.encoders) == ("toy_audio", "toy_other", "toy_image")
    toy = info.encoders["toy_audio"]
    assert (toy.modality, toy.dim, toy.version, toy.rows, toy.failed) == ("audio", 5, "v1", 16, 0)
    assert 0 < toy.float16_error < 2**-11
    files = [path for path in built.rglob("*") if path.is_file() and path.name != "pack.json"]
    digests = {str(f.relative_to(built)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    assert info.files == digests


def test_missing_and_altered_files_are_named(folder):
    for name in read_pack(folder).info.files:
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(AnymodalError, match=rf"{path.name} is not the file.*dvc pull"):
            read_pack(folder)
        path.unlink()
        with pytest.raises(AnymodalError, match=rf"lacks {name}; fetch it again"):
            read_pack(folder)
        path.write_bytes(content)
    (folder / "pack.json").unlink()
    with pytest.raises(AnymodalError, match="no feature pack in .*dvc pull"):
        read_pack(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 99}, "format: Input should be .* 1"),
        ({"name": None}, "name: Input should be a valid string"),
        ({"encoders": {}}, "describes no whole pack"),
        ({"files": {}}, "describes no whole pack"),
        ({"files": {"pack.json": "0"}}, "describes no whole pack"),
    ],
)
def test_a_wrong_description_is_refused(folder, values, message):
    change(folder, **values)
    with pytest.raises(AnymodalError, match=message):
        read_pack(folder)


def test_files_outside_the_pack_and_broken_descriptions_are_refused(folder):
    change(folder, files=read_pack(folder).info.files | {"../secret": "0"})
    with pytest.raises(AnymodalError, match="names a file outside the pack"):
        read_pack(folder)
    (folder / "pack.json").write_text("{")
    with pytest.raises(AnymodalError, match=r"pack\.json: not valid JSON.*dvc pull"):
        read_pack(folder)


@pytest.mark.slow
def test_the_bundled_pack_is_read_and_its_sources_are_known(pack_folder):
    pack = read_pack(pack_folder)
    sources = media_sources()
    assert set(pack.clips["source"]) <= set(sources)
    assert all(source.source and source.origin and source.licence for source in sources.values())
    assert pack.info.counts["clips"] == len(pack.clips) > 4000
    assert {encoder.modality for encoder in pack.info.encoders.values()} == {"audio", "image"}


def test_datasheet_states_sources_and_limits(built):
    pack = read_pack(built)
    text = (built / "DATASHEET.md").read_text()
    assert text == datasheet(pack.info, pack.clips)
    philharmonia = media_sources()["philharmonia"]
    for line in (
        f"| philharmonia | {philharmonia.origin} | {philharmonia.licence} | 8 | 0 |",
        "| mystery | not stated | not stated | 8 | 0 |",
        "| banjo | 4 | 8 | 3 | 7 |",
        "| violin | mystery | 4 | 0 |",
    ):
        assert line in text.splitlines()
    for fact in (
        "8 recordings (16 one-second windows) and 6 images",
        "**class-paired**",
        "AudioSet",
        "all images are from the source kaggle30",
        "philharmonia: single notes",
        "no licence is stated for kaggle30, mystery",
    ):
        assert fact in text
