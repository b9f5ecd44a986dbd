"""InfoNCE against a plain double loop, by hand, and at the ends of its domain."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anymodal.core.errors import AnymodalError
from anymodal.projection.infonce import infonce_loss


def by_double_loop(
    audio: Tensor, image: Tensor, classes: list[int] | None, temperature: float
) -> float:
    n, audio, image = len(audio), audio.detach(), image.detach()
    s = [[float(audio[i] @ image[j]) / temperature for j in range(n)] for i in range(n)]
    total = 0.0
    for i in range(n):
        for transposed in (False, True):
            others = 0.0
            for j in range(n):
                if i == j or (classes is not None and classes[i] == classes[j]):
                    continue
                others += math.exp(s[j][i] if transposed else s[i][j])
            total += math.log(math.exp(s[i][i]) + others) - s[i][i]
    return total / (2 * n)


def batch(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    audio, image = torch.nn.functional.normalize(sides, dim=2)
    return audio.requires_grad_(), image.requires_grad_()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 5),
    kinds=st.none() | st.integers(1, 6),
    temperature=st.floats(0.05, 5),
    seed=st.integers(0, 2**31),
)
def test_any_batch_matches_the_double_loop(
    n: int, d: int, kinds: int | None, temperature: float, seed: int
) -> None:
    audio, image = batch(n, d, seed)
    generator = torch.Generator().manual_seed(seed)
    classes = None if kinds is None else torch.randint(kinds, (n,), generator=generator)
    listed = None if classes is None else classes.tolist()
    loss = infonce_loss(audio, image, classes, temperature)
    expected = by_double_loop(audio, image, listed, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("codes", [None, [0, 0, 1, 2, 1]])
def test_gradcheck(codes: list[int] | None) -> None:
    audio, image = batch(5, 3, seed=0)
    classes = None if codes is None else torch.tensor(codes)
    assert torch.autograd.gradcheck(lambda a, i: infonce_loss(a, i, classes, 0.5), (audio, image))


def test_without_classes_it_is_cross_entropy_both_ways() -> None:
    audio, image = batch(6, 4, seed=1)
    logits, own = audio @ image.T / 0.1, torch.arange(6)
    ways = (torch.nn.functional.cross_entropy(one, own) for one in (logits, logits.T))
    torch.testing.assert_close(infonce_loss(audio, image, None, 0.1), sum(ways) / 2)


def test_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    expected = math.log(math.e + 1) - 1
    assert infonce_loss(eye, eye, None, 1.0).item() == pytest.approx(expected)
    assert infonce_loss(eye, eye.flip(0), None, 1.0).item() == pytest.approx(expected + 1)
    # colder is sharper: a right answer costs less, a wrong one more
    assert infonce_loss(eye, eye, None, 0.1) < infonce_loss(eye, eye, None, 1.0)
    assert infonce_loss(eye, eye.flip(0), None, 0.1) > infonce_loss(eye, eye.flip(0), None, 1.0)


@pytest.mark.parametrize(("n", "codes"), [(0, None), (1, None), (4, [7, 7, 7, 7])])
def test_without_negatives_it_is_zero_with_zero_gradients(n: int, codes: list[int] | None) -> None:
    audio, image = batch(n, 3, seed=2)
    loss = infonce_loss(audio, image, None if codes is None else torch.tensor(codes), 0.07)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for gradient in torch.autograd.grad(loss, (audio, image)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_no_overflow_at_low_temperatures() -> None:
    audio, image = (side.detach().float() for side in batch(8, 4, seed=3))
    assert torch.isfinite(infonce_loss(audio, image, None, 1e-4))


def test_bad_input() -> None:
    audio, image = batch(4, 3, seed=0)
    with pytest.raises(AnymodalError, match="one shape"):
        infonce_loss(audio, image[:3], None, 1.0)
    with pytest.raises(AnymodalError, match="as many classes"):
        infonce_loss(audio, image, torch.tensor([1, 2]), 1.0)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(AnymodalError, match="temperature above 0"):
            infonce_loss(audio, image, None, temperature)
