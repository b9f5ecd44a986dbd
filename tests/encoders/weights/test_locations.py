"""Folders that weights lie in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders.weights import locations


def test_package_folder_without_import():
    assert locations.package_dir("no_such_package") is None
    assert locations.package_dir("json") == Path(json.__file__).parent


def test_weights_folder_of_the_parameters(tmp_path, monkeypatch):
    # setenv first, so that the variable is as before when the test ends
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", "")
    (tmp_path / "mine").mkdir()
    locations.use_weights_dir(None, tmp_path)
    assert locations.weights_dir() is None
    with pytest.raises(AnymodalError, match=r"embed\.weights_dir names .*absent, which is not"):
        locations.use_weights_dir(Path("absent"), tmp_path)
    locations.use_weights_dir(Path("mine"), tmp_path)
    assert locations.weights_dir() == tmp_path / "mine"
    locations.use_weights_dir(tmp_path, tmp_path)  # the variable is set by now, and wins
    assert locations.weights_dir() == tmp_path / "mine"
