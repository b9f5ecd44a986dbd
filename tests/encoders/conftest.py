"""Encoders built once for all tests."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from anymodal import encoders
from anymodal.encoders.base import Encoder
from anymodal.errors import AnymodalError


@cache
def _built(name: str) -> Encoder | AnymodalError:
    try:
        return encoders.get(name, device="cpu")
    except AnymodalError as error:
        return error


@pytest.fixture(scope="session")
def built():
    """Function: registry name → encoder on the CPU; skips where its weights cannot be had."""

    def build(name: str) -> Encoder:
        encoder = _built(name)
        if isinstance(encoder, AnymodalError):
            pytest.skip(str(encoder))
        return encoder

    return build


@pytest.fixture(autouse=True)
def _same_threads_after():
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads, "an encoder changed PyTorch's thread setting"
