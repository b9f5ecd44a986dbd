"""Untrained weights of every family whose published ones need network."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from anymodal.encoders import registry

FAMILIES = {
    "anymodal.encoders.openl3": "helpers.untrained_openl3",
    "anymodal.encoders.image.keras_applications": "helpers.untrained_keras",
    "anymodal.encoders.audio.tfhub": "helpers.untrained_tfhub",
}
"""Module of a family → the module that writes weights as its publisher does."""


def write_untrained(name: str, folder: Path) -> Path:
    """Write seeded weights of an encoder in its publisher's format; the path to load them from."""
    family = importlib.import_module(FAMILIES[registry.info(name).module])
    path: Path = family.write_untrained(name, folder)
    return path


def every_encoder() -> list:
    """Registry names for `parametrize`: one of each modality is a fast test, the others slow.
    Without the networks of OpenL3 pooled to 512 values, which are those of 6144 and 8192."""
    fast = ("musicnn_mtt", "efficientnet_lite0")
    return [
        pytest.param(name, marks=[] if name in fast else [pytest.mark.slow])
        for name in registry.names()
        if not name.endswith("_512")
    ]
