"""The registry: names without imports, errors that tell what to do."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import plugins, registry
from anymodal.encoders.entry import checked
from anymodal.encoders.registry import EncoderInfo


@pytest.fixture
def session(monkeypatch):
    """What `register` adds is forgotten after the test."""
    monkeypatch.setattr(registry, "_session", {})


def tiny(name="tiny", **fields):
    return EncoderInfo(**{"name": name, "modality": "image", "dim": 3, "module": "tiny", **fields})


def test_names():
    assert registry.names("audio")[:2] == ("musicnn_mtt", "musicnn_msd")
    assert set(registry.names("audio")) | set(registry.names("image")) == set(registry.names())
    with pytest.raises(AnymodalError, match="no modality 'text'; known: audio, image"):
        registry.names("text")


def test_the_encoders_of_the_paper_are_there():
    """Paper, table 1, by dimensions; the pair of 512 is the baseline without translation."""
    expected = {
        "openl3_audio": 6144, "vggish": 128, "yamnet": 1024,
        "openl3_image": 8192, "vgg16": 512, "resnet50": 2048,
        "openl3_audio_512": 512, "openl3_image_512": 512,
    }  # fmt: skip
    assert {name: registry.info(name).dim for name in expected} == expected


def test_every_entry_can_stand_in_the_registry():
    for info in map(registry.info, registry.names()):
        assert checked(info) is info
        assert info.summary and info.pooling and info.licence and info.parameters > 0, info.name
        assert importlib.util.find_spec(info.module) is not None


def test_unknown_name_lists_the_names():
    for call in (registry.info, registry.get):
        for name in ("wav2vec", "", None, ["musicnn_mtt"]):
            with pytest.raises(AnymodalError, match=r"known: musicnn_mtt, .*efficientnet_lite2"):
                call(name)


def test_register(session):
    registry.register(tiny())
    assert registry.info("tiny") == tiny() and registry.names("image")[-1] == "tiny"
    for taken in (tiny(dim=4), tiny("musicnn_mtt")):
        with pytest.raises(AnymodalError, match=f"{taken.name}' is registered already"):
            registry.register(taken)
    with pytest.raises(AnymodalError, match="tiny needs the module tiny"):
        registry.get("tiny")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("tiny", "a value of type str is no EncoderInfo"),
        (tiny("../a"), "a name is made of letters, digits"),
        (tiny(None), "a name is made of"),
        (tiny(modality="text"), "has the modality 'text'; known: audio, image"),
        (tiny(dim=0), "has the dim 0, which is not a positive integer"),
        (tiny(dim=True), "has the dim True"),
        (tiny(modality="audio"), "states no sample_rate"),
        (tiny(module=""), "names no module"),
    ],
)
def test_register_refuses(info, message, session):
    with pytest.raises(AnymodalError, match=message):
        registry.register(info)
    assert registry._session == {}


def package(folder: Path, name: str, module: str, **points: str) -> None:
    """A package as pip leaves it: a module, and a dist-info with entry points."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("[anymodal.encoders]\n" + "\n".join(lines) + "\n")


HEAD = "from anymodal.encoders import EncoderInfo\n"


@pytest.fixture
def site(tmp_path, monkeypatch, session):
    """A folder of installed packages; what is known of installed ones is forgotten."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    plugins.installed.cache_clear()
    yield tmp_path / "site"
    plugins.installed.cache_clear()
    for name in ("goodpkg", "badpkg"):
        sys.modules.pop(name, None)


def test_entry_points(site, caplog):
    module = HEAD + "ONE = EncoderInfo('one', 'image', 3, 'm')\nMORE = [ONE, EncoderInfo('two', "
    package(site, "goodpkg", module + "'audio', 4, 'm', 16_000)]\n", a="goodpkg:MORE")
    assert registry.names()[-2:] == ("one", "two")
    assert registry.info("two").sample_rate == 16_000 and not caplog.text
    with pytest.raises(AnymodalError, match="'one' is registered already"):
        registry.register(tiny("one"))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit", "SystemExit: no reason given"),
        ("", "AttributeError: "),
        ("ENCODERS = 3", "an encoder of .* is skipped: a value of type int is no EncoderInfo"),
        (
            HEAD + "ENCODERS = EncoderInfo('musicnn_mtt', 'image', 3, 'm')",
            "the name 'musicnn_mtt' is taken by anymodal's own",
        ),
        (
            HEAD + "ENCODERS = EncoderInfo('good', 'image', 3, 'm')",
            "the name 'good' is taken by an earlier entry point",
        ),
    ],
)
def test_a_broken_plugin_does_not_take_the_others_along(site, caplog, module, message):
    package(site, "goodpkg", HEAD + "ONE = EncoderInfo('good', 'image', 3, 'm')\n", a="goodpkg:ONE")
    package(site, "badpkg", module, b="badpkg:ENCODERS")
    assert registry.names()[-1] == "good"
    (record,) = caplog.records
    assert re.search(message, record.getMessage())
    assert "package badpkg, entry point b = badpkg:ENCODERS" in record.getMessage()
    assert "\n" not in record.getMessage()
    registry.names()
    assert len(caplog.records) == 1, "logged once"


def test_registry_imports_nothing_heavy():
    code = (
        "import sys, anymodal.encoders as e; e.info(e.names()[0]);"
        "heavy = 'torch tensorflow keras safetensors PIL sklearn pooch h5py'.split();"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_device_that_is_not_there(device):
    from anymodal.encoders.torch_encoder import resolve_device

    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(AnymodalError, match="device"):
        resolve_device(device)
