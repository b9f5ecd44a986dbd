"""Safetensors files: what is written is read, and damage is never loaded."""

from __future__ import annotations

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders.weights import tensors

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5], "f4")}
SHA256 = tensors.fingerprint(TENSORS)


def assert_equal(got, expected=TENSORS):
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


def test_fingerprint_sees_everything_but_order_and_layout():
    assert tensors.fingerprint(dict(reversed(TENSORS.items()))) == SHA256
    fortran = {name: np.asfortranarray(tensor) for name, tensor in TENSORS.items()}
    assert tensors.fingerprint(fortran) == SHA256
    big_endian = {name: tensor.astype(">f4") for name, tensor in TENSORS.items()}
    assert tensors.fingerprint(big_endian) == SHA256
    for other in (
        {**TENSORS, "a.weight": TENSORS["a.weight"].reshape(3, 2)},
        {**TENSORS, "a.weight": TENSORS["a.weight"] + 1},
        {"c": TENSORS["a.weight"], "b": TENSORS["b"]},
        {"b": TENSORS["b"]},
    ):
        assert tensors.fingerprint(other) != SHA256


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    tensors.write_weights(path, TENSORS, "x", "a test")
    assert_equal(tensors.read_weights(path, "x"))
    with pytest.raises(AnymodalError, match="holds the weights of x, not of y"):
        tensors.read_weights(path, "y")
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            got = tensors.read_weights(path, "x")
        except AnymodalError as error:
            assert str(path) in str(error)
        else:  # a byte of the metadata that is only for the reader's information
            assert_equal(got)
    path.write_bytes(content[:-3])
    with pytest.raises(AnymodalError, match="not a whole safetensors file"):
        tensors.read_weights(path, "x")


def test_named_file_wins_then_the_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ANYMODAL_WEIGHTS_DIR", raising=False)
    assert tensors.given_weights("x", None) is None
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path))
    assert tensors.given_weights("x", None) is None
    tensors.write_weights(tmp_path / "x.safetensors", TENSORS, "x", "a test")
    assert_equal(tensors.given_weights("x", None))
    other = {"c": np.zeros(2, np.float32)}
    tensors.write_weights(tmp_path / "named.safetensors", other, "x", "a test")
    assert_equal(tensors.given_weights("x", tmp_path / "named.safetensors"), other)
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path / "absent"))
    with pytest.raises(AnymodalError, match="ANYMODAL_WEIGHTS_DIR names .*absent"):
        tensors.given_weights("x", None)
