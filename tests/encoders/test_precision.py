"""Networks in shorter types than float32: the error, its measure, and what must not change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.guarantees import items
from anymodal.encoders.precision import PRECISIONS, precision_error
from anymodal.encoders.torch_encoder import TorchEncoder, _computes_in
from helpers.untrained import every_encoder

SHORT = [precision for precision in PRECISIONS if precision != "float32"]


class Table:
    """An encoder whose embeddings are given: items are row numbers."""

    def __init__(self, rows):
        self.rows = np.array(rows, np.float32).reshape(-1, 3)

    def embed(self, batch):
        return self.rows[[int(item) for item in batch]]


def test_error_is_that_of_the_worst_row():
    full = Table([[3, 0, 4], [0, 0, 0], [1, 2, 2]])
    assert precision_error(full, Table([[3, 1, 4], [0, 0, 0], [1, 2, 2.9]]), range(3)) == (
        pytest.approx(0.3)
    )
    assert precision_error(full, full, range(3)) == precision_error(full, full, []) == 0
    for wrong in ([3, np.inf, 4], [3, np.nan, 4]), [[3, 0, 4], [0, 1, 0]]:
        assert precision_error(full, Table(np.resize(wrong, (2, 3))), range(2)) == np.inf


@pytest.mark.parametrize("name", every_encoder())
def test_every_encoder_is_nearly_the_same_in_bfloat16(name, built):
    encoder = built(name)
    if not isinstance(encoder, TorchEncoder):
        pytest.skip("does not run on PyTorch")
    if encoder.modality == "audio":
        assert type(encoder)._front is not TorchEncoder._front, "the spectrum must stay float32"
    full, version = encoder.embed(items(encoder)[:2]), encoder.version
    encoder.use_precision("bfloat16")
    try:
        short, other = encoder.embed(items(encoder)[:2]), encoder.version
    finally:
        encoder.use_precision("float32")
    assert short.dtype == np.float32 and other != version == encoder.version
    error = np.linalg.norm(short - full, axis=1) / np.linalg.norm(full, axis=1)
    # far the largest are EfficientNet-Lite's, on a picture that is no photograph
    assert (error > 0).all() and (error < 0.2).all()


@pytest.mark.slow
def test_shorter_types_by_name(built, tmp_path):
    full, versions, errors = built("musicnn_mtt"), set(), []
    for precision in SHORT:
        short = registry.get("musicnn_mtt", "cpu", precision=precision)
        versions.add(short.version)
        errors.append(precision_error(full, short, items(full)[:3]))
        short.save_weights(tmp_path / "saved.safetensors")  # which are those of float32
        again = registry.get("musicnn_mtt", "cpu", tmp_path / "saved.safetensors")
        assert again.version == full.version
    assert len(versions | {full.version}) == 3
    bfloat16, float16 = errors
    assert 0 < float16 < bfloat16 / 2 < 0.025  # it has three more bits


def test_unknown_precision():
    with pytest.raises(AnymodalError, match="no precision 'int8'; known: float32, bfloat16"):
        registry.get("musicnn_mtt", "cpu", precision="int8")
    with pytest.raises(AnymodalError, match="no precision 'half'"):
        Probe().use_precision("half")
    assert not _computes_in(torch.device("cpu"), torch.float64)


class Probe(TorchEncoder):
    """One weight of 1: items are multiplied in front and in the network."""

    def __init__(self):
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(network.weight)
        info = registry.EncoderInfo("probe", "audio", 1, "nowhere", sample_rate=1)
        super().__init__(info, network, "cpu", "probe")
        self.seen: list[torch.dtype] = []

    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        yield item

    def _front(self, windows: torch.Tensor) -> torch.Tensor:
        product = windows @ torch.ones(1, 1)
        self.seen.append(product.dtype)
        return product

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        result = self.network(windows)
        self.seen.append(result.dtype)
        return result


@pytest.mark.parametrize("precision", PRECISIONS)
def test_front_stays_float32(precision):
    probe = Probe()
    probe.use_precision(precision)
    value = np.float32([1 + 2**-20])
    got = probe.embed([value])
    assert got.dtype == np.float32
    assert probe.seen == [torch.float32, getattr(torch, precision)]
    assert got[0, 0] == (value[0] if precision == "float32" else 1.0)
