"""The registry: names without imports, errors that tell what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anymodal import encoders
from anymodal.encoders.base import Encoder
from anymodal.errors import AnymodalError


def test_names():
    assert encoders.names("audio") == ("musicnn_mtt", "musicnn_msd")
    assert encoders.names("image") == (
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
    )
    assert encoders.names() == encoders.names("audio") + encoders.names("image")
    with pytest.raises(AnymodalError, match="no modality 'text'; known: audio, image"):
        encoders.names("text")


def test_unknown_name_lists_the_names():
    for call in (encoders.info, encoders.get):
        for name in ("vggish", "", None, ["musicnn_mtt"]):
            with pytest.raises(AnymodalError, match=r"known: musicnn_mtt, .*efficientnet_lite2"):
                call(name)


def test_registry_imports_nothing_heavy():
    code = (
        "import sys, anymodal.encoders as e; e.info(e.names()[0]);"
        "print([m for m in ('torch', 'safetensors', 'PIL', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", encoders.names())
def test_info_is_what_the_encoder_says(name, built):
    encoder, info = built(name), encoders.info(name)
    assert isinstance(encoder, Encoder)
    for field in ("name", "modality", "dim", "sample_rate", "image_size"):
        assert getattr(encoder, field) == getattr(info, field)
    assert (info.sample_rate is None) == (info.modality == "image") != (info.image_size is None)
    assert info.summary


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_device_that_is_not_there(device):
    from anymodal.encoders.torch_encoder import resolve_device

    with pytest.raises(AnymodalError, match="device"):
        resolve_device(device)


def test_auto_device_is_one_that_works():
    import torch

    from anymodal.encoders.torch_encoder import resolve_device

    torch.ones(2, device=resolve_device("auto")).sum().item()
