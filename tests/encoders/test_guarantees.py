"""The check of the guarantees: it passes an honest encoder and catches every breach."""

from __future__ import annotations

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import guarantees
from anymodal.encoders.batched import BatchedEncoder
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.windows import audio_windows, rgb_image

AUDIO = EncoderInfo("levels", "audio", 4, "none", sample_rate=8000)
IMAGE = EncoderInfo("colours", "image", 4, "none", image_size=8)


class Honest(BatchedEncoder):
    """Mean, spread, largest and smallest value."""

    def __init__(self, info):
        super().__init__(info, {}, "a test", 3)

    def _tensors(self):
        return {}

    def _windows(self, item):
        if self.modality == "audio":
            yield from audio_windows(item, 8000)
        else:
            yield np.resize(rgb_image(item), (8, 8, 3))

    def _run(self, windows):
        flat = windows.reshape(len(windows), -1).astype(np.float64)
        facts = [flat.mean(axis=1), flat.std(axis=1), flat.max(axis=1), flat.min(axis=1)]
        return np.stack(facts, axis=1)


@pytest.mark.parametrize("info", [AUDIO, IMAGE])
def test_an_honest_encoder(info):
    guarantees.check(Honest(info))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda got, *_: got[:, :3], r"0 items give float32 \(0, 3\), not float32 \(0, 4\)"),
        (lambda got, *_: got.astype(np.float64), "give float64"),
        (lambda got, *_: got.tolist(), "0 items give list"),
        (lambda got, *_: np.full_like(got, np.inf), "not finite"),
        (lambda got, batch: got + 1e-3 * len(batch), "depends on the other items"),
        (lambda got, batch: got - got.mean(axis=0) if len(got) else got, "depends on the other"),
        (lambda got, *_: np.ones_like(got), "quite different items have the same vector"),
    ],
)
def test_breaches_are_caught(change, message):
    class Changed(Honest):
        def embed(self, batch):
            return change(super().embed(batch), batch)

    for info in (AUDIO, IMAGE):
        with pytest.raises(AnymodalError, match=f"{info.name} breaks a promise: .*({message})"):
            guarantees.check(Changed(info))


def test_breaches_with_a_memory():
    class Drifting(Honest):
        calls = 0

        def embed(self, batch):
            self.calls += 1
            return super().embed(batch) * np.float32(1 + 1e-7 * self.calls)

    class Writing(Honest):
        def embed(self, batch):
            for item in batch:
                item *= 0.5
            return super().embed(batch)

    with pytest.raises(AnymodalError, match="when it is embedded again"):
        guarantees.check(Drifting(AUDIO))
    with pytest.raises(ValueError, match="read-only"):
        guarantees.check(Writing(AUDIO))
    with pytest.raises(AnymodalError, match="states its sample_rate"):
        guarantees.check(Honest(EncoderInfo("levels", "audio", 4, "none")))


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (None, "it takes list for an item"),
        (AnymodalError("no"), "item 1 …` in one line"),
        (ValueError("no"), "with ValueError, not AnymodalError"),
    ],
)
def test_wrong_items(raised, message):
    class Wrong(Honest):
        def embed(self, batch):
            if raised is None:
                batch = [item if isinstance(item, np.ndarray) else batch[0] for item in batch]
            try:
                return super().embed(batch)
            except AnymodalError:
                raise raised or AnymodalError(f"{self.name}: item 1 is wrong") from None

    with pytest.raises(AnymodalError, match=message):
        guarantees.check(Wrong(AUDIO))


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        ("embed_prepared", lambda got: np.zeros((1, 4), np.float32), "ahead has another vector"),
        ("preparation", lambda: np.negative, "prepared by another process differs"),
        ("preparation", lambda: lambda item: item, "its preparation cannot be pickled"),
    ],
)
def test_preparation(method, wrong, message):
    encoder = Honest(AUDIO)
    setattr(encoder, method, wrong)
    with pytest.raises(AnymodalError, match=message):
        guarantees.check(encoder)
