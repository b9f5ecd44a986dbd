"""Weights of encoders: what is said to be here is here, and what is wrong is told by name."""

from __future__ import annotations

import base64
import hashlib
import importlib

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.registry import EncoderInfo, WeightFile, WeightPackage
from anymodal.encoders.weights import inventory
from anymodal.encoders.weights.tensors import write_weights
from helpers.weightserver import serving, whole

CONTENT = b"weights of a publisher"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TENSORS = {"w": np.ones(2, np.float32)}
MODULE = """
from anymodal.encoders.batched import BatchedEncoder
from anymodal.encoders.weights.files import locate

class Plain(BatchedEncoder):
    def _tensors(self): return {}
    def _windows(self, item): yield item
    def _run(self, windows): return windows

def load(info, device, path):
    for file in info.files:
        assert locate(info.name, file, path).read_bytes() == b"weights of a publisher"
    return Plain(info, {}, "a test", 1)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no weights folder, a registry of the test's own, and a module `onefamily`."""
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path))
    for name in ("ANYMODAL_WEIGHTS_DIR", "ANYMODAL_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(registry, "_session", {})
    (tmp_path / "onefamily.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "weights"


@pytest.fixture
def publisher(cache):
    with serving() as publisher:
        publisher.says(whole(CONTENT))
        yield publisher


def register(name, *files, module="onefamily", **fields):
    registry.register(EncoderInfo(name, "image", 1, module, files=files, **fields))
    return name


def only(name):
    (holding,) = inventory.survey([name])
    return holding


def test_a_file_before_and_after(publisher, cache):
    name = register("one", WeightFile("w.h5", publisher.url), parameters=10)
    before = only(name)
    assert (before.ready, before.state) == (False, "missing: needs network")
    assert (before.source, before.size, before.checksum) == ("127.0.0.1", None, "none")
    assert list(inventory.verify([name])) == []
    (outcome,) = inventory.fetch([name])
    assert outcome.ok and outcome.message.startswith("ready, version ")
    after = only(name)
    assert (after.ready, after.state) == (True, f"present at {cache / 'w.h5'}")
    assert (after.size, after.checksum) == (len(CONTENT), "recorded")
    assert verified(name) == (True, f"{cache / 'w.h5'}: as at its first use")
    (cache / "w.h5").write_bytes(b"altered")
    ok, message = verified(name)
    assert not ok and f"{cache / 'w.h5'} has the" in message
    assert only(name).ready, "a survey hashes nothing"


def test_pinned_and_brought(publisher, cache, tmp_path, monkeypatch):
    name = register(
        "one",
        WeightFile("w.h5", publisher.url, sha256=SHA256),
        WeightFile("v", "https://example.org/v?format=x", md5="0" * 32, unpack="tar.gz"),
    )
    assert only(name).source == "127.0.0.1, example.org"
    brought = tmp_path / "brought"
    brought.mkdir()
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(brought))
    (brought / "w.h5").write_bytes(CONTENT)
    assert not only(name).ready
    (brought / "v.tar.gz").write_bytes(b"not yet unpacked")
    holding = only(name)
    assert holding.state == f"present at {brought / 'w.h5'}, {brought / 'v.tar.gz'}"
    assert holding.checksum == "pinned" and holding.size == len(CONTENT) + 16
    good, wrong = inventory.verify([name])
    assert good.ok and good.message == f"{brought / 'w.h5'}: as pinned"
    assert not wrong.ok and f"{brought / 'v.tar.gz'} has the md5" in wrong.message
    assert not cache.exists(), "verifying records nothing"


def test_one_that_fails_does_not_stop_the_others(publisher, monkeypatch):
    register("breaks", module="json")
    register("one", WeightFile("w.h5", publisher.url))
    register("absent", WeightFile("x.h5", "http://127.0.0.1:9/x"))
    monkeypatch.setattr("anymodal.encoders.weights.files.RETRIES", 0)
    breaks, absent, one = inventory.fetch(["breaks", "absent", "one"])
    assert not breaks.ok and breaks.message.startswith("TypeError: ")
    assert not absent.ok and "no weights of absent: the download of x.h5" in absent.message
    assert one.ok


def test_files_are_fetched_even_where_the_extra_is_missing(publisher, cache, monkeypatch):
    name = register("one", WeightFile("w.h5", publisher.url), extra="tf")
    assert not inventory.lacks("")
    monkeypatch.setitem(inventory._MODULES, "tf", ("json", "a_module_that_is_not_there"))
    assert only(name).state == "missing: needs network; needs anymodal[tf]"
    (outcome,) = inventory.fetch([name])
    assert outcome.ok and "to run it: pip install 'anymodal[tf]'" in outcome.message
    holding = only(name)
    assert not holding.ready and holding.state.endswith("w.h5; needs anymodal[tf]")


def test_our_safetensors(cache):
    name = register("one", WeightFile("w.h5", "http://127.0.0.1:9/w"))
    ours = cache / "one.safetensors"
    write_weights(ours, TENSORS, "one", "a test")
    assert only(name).state == f"present at {ours}"
    assert verified(name)[0]
    ours.write_bytes(ours.read_bytes()[:-1] + b"x")
    ok, message = verified(name)
    assert not ok and f"{ours} is corrupt" in message and "delete it" in message


def install(folder):
    """A package `onepkg` as pip leaves it, with its record of checksums."""
    (folder / "onepkg").mkdir()
    (folder / "onepkg" / "__init__.py").write_bytes(b"")
    path = folder / "onepkg" / "w.pth"
    path.write_bytes(CONTENT)
    info = folder / "onepkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onepkg\nVersion: 1.0\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(CONTENT).digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"onepkg/w.pth,sha256={digest},1\n{info.name}/RECORD,,\n")
    # folders are read anew when their time changes, which has steps of milliseconds
    importlib.invalidate_caches()
    return path


def verified(name):
    (outcome,) = inventory.verify([name])
    return outcome.ok, outcome.message


def test_a_package(cache, tmp_path):
    name = register("one", package=WeightPackage("onepkg==1.0"))
    assert only(name).state == "missing: needs network, or pip install onepkg==1.0"
    path = install(tmp_path)
    holding = only(name)
    assert (holding.ready, holding.state, holding.checksum) == (True, "installed package", "pinned")
    assert holding.size == len(CONTENT)
    assert verified(name) == (True, "package onepkg==1.0: 1 files as in its wheel")
    path.write_bytes(b"altered")
    ok, message = verified(name)
    assert not ok and f"{path} is not the file of onepkg==1.0; run `pip" in message
    path.unlink()
    ok, message = verified(name)
    assert not ok and f"{path} of onepkg==1.0 is missing" in message
    ok, message = verified(register("two", package=WeightPackage("onepkg==2.0")))
    assert not ok and "onepkg==2.0 is pinned, but 1.0 is installed" in message


def test_a_wheel(cache):
    name = register("one", package=WeightPackage("nopkg==1.0", SHA256))
    cache.mkdir()
    wheel = cache / "nopkg-1.0-py3-none-any.whl"
    wheel.write_bytes(CONTENT)
    assert only(name).state == f"present at {wheel}"
    assert verified(name)[0]
    wheel.write_bytes(b"")
    ok, message = verified(name)
    assert not ok and f"{wheel} has the SHA-256" in message


def test_nothing_to_find(cache):
    holding = only(register("one"))
    assert (holding.ready, holding.state, holding.source) == (True, "needs none", "its own code")
    for function in (inventory.survey, inventory.verify):
        with pytest.raises(AnymodalError, match="no encoder 'x'; known"):
            list(function(["x"]))
    assert [o.ok for o in inventory.fetch(["x"])] == [False]
