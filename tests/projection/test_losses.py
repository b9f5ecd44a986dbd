"""The contrastive loss against a plain double loop, a dense autograd version, and by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anymodal.core.errors import AnymodalError
from anymodal.projection.losses import contrastive_loss


def by_double_loop(audio: Tensor, image: Tensor, classes: Tensor | None, margin: float) -> float:
    similarity = (audio @ image.T).tolist()
    n, total, negatives = len(audio), 0.0, 0
    for i in range(n):
        for j in range(n):
            if i == j or (classes is not None and classes[i] == classes[j]):
                continue
            negatives += 1
            total += max(0.0, margin - similarity[i][i] + similarity[i][j])
            total += max(0.0, margin - similarity[j][j] + similarity[i][j])
    return total / (2 * negatives) if negatives else 0.0


def dense(audio: Tensor, image: Tensor, classes: Tensor | None, margin: float) -> Tensor:
    similarity = audio @ image.T
    pair = similarity.diagonal()
    negative = ~torch.eye(len(audio), dtype=torch.bool)
    if classes is not None:
        negative = classes[:, None] != classes[None]
    if not negative.any():
        return (audio.sum() + image.sum()) * 0
    rows = torch.relu(margin - pair[:, None] + similarity)[negative].mean()
    columns = torch.relu(margin - pair[None] + similarity)[negative].mean()
    return (rows + columns) / 2


def authors(audio: Tensor, image: Tensor, margin: float) -> Tensor:
    """The formula of the paper's code: audio anchors, every other row."""
    similarity = audio @ image.T
    hinges = torch.relu(margin - similarity.diagonal()[:, None] + similarity)
    return hinges[~torch.eye(len(audio), dtype=torch.bool)].mean()


def batch(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randn(2, n, d, generator=generator, dtype=dtype)
    audio, image = torch.nn.functional.normalize(sides, dim=2)
    return audio.requires_grad_(), image.requires_grad_()


CLASSES = {
    "none": None,
    "all unique": [5, 2, 9, 0, 7, 3, 1],
    "two classes": [0, 1, 0, 1, 1, 0, 0],
    "one stands alone": [4, 4, 4, 4, 1, 4, 4],
    "negative codes": [-1, -7, -1, 3, 3, -7, -1],
    "one class": [2, 2, 2, 2, 2, 2, 2],
}


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("codes", CLASSES.values(), ids=CLASSES.keys())
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_value_and_gradients_match_the_references(
    codes: list[int] | None, margin: float, chunk: int | None
) -> None:
    audio, image = batch(7, 4, seed=3)
    classes = None if codes is None else torch.tensor(codes)
    loss = contrastive_loss(audio, image, classes, margin, chunk)
    assert loss.item() == pytest.approx(by_double_loop(audio, image, classes, margin), abs=1e-12)
    expected = torch.autograd.grad(dense(audio, image, classes, margin), (audio, image))
    for found, wanted in zip(torch.autograd.grad(loss, (audio, image)), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40),
    d=st.integers(1, 6),
    kinds=st.integers(1, 12),
    chunk=st.integers(1, 45),
    margin=st.floats(0, 2),
    seed=st.integers(0, 2**31),
)
def test_any_batch_matches_the_dense_version(
    n: int, d: int, kinds: int, chunk: int, margin: float, seed: int
) -> None:
    audio, image = batch(n, d, seed)
    classes = torch.randint(kinds, (n,), generator=torch.Generator().manual_seed(seed))
    loss = contrastive_loss(audio, image, classes, margin, chunk)
    reference = dense(audio, image, classes, margin)
    torch.testing.assert_close(loss, reference, rtol=1e-9, atol=1e-12)
    pairs = zip(
        torch.autograd.grad(loss, (audio, image)),
        torch.autograd.grad(reference, (audio, image)),
        strict=True,
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("codes", [None, [0, 0, 1, 2, 1, 3]])
def test_gradcheck(codes: list[int] | None) -> None:
    audio, image = batch(6, 3, seed=0)
    classes = None if codes is None else torch.tensor(codes)
    assert torch.autograd.gradcheck(
        lambda a, i: contrastive_loss(a, i, classes, 0.4, chunk=4), (audio, image)
    )


def test_by_hand() -> None:
    # similarities: own pairs 1 and 0; across 0 (audio 0, image 1) and 1 (audio 1, image 0)
    audio = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # audio -> image: 1-1+0 = 0, 1-0+1 = 2; image -> audio: image 1: 1-0+0 = 1, image 0: 1-1+1 = 1
    assert contrastive_loss(audio, image, None, 1.0).item() == pytest.approx((0 + 2 + 1 + 1) / 4)


def test_perfect_translation_costs_nothing() -> None:
    rows = torch.eye(5, requires_grad=True)
    loss = contrastive_loss(rows, rows.detach(), None, 1.0)
    assert loss.item() == 0.0
    (gradient,) = torch.autograd.grad(loss, rows)
    assert not gradient.any()


def test_same_class_rows_neither_attract_nor_repel() -> None:
    # rows 0 and 1 are confused with one another and of one class; row 2 is far from both
    audio = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    image = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, -1.0]])
    classes = torch.tensor([0, 0, 1])
    # own pairs have 1, 0 and 2, rows across classes -1: no hinge is within 0.5
    assert contrastive_loss(audio, image, classes, 0.5).item() == 0.0
    # without classes rows 0 and 1 compete: audio 0 and image 1 have 1, audio 1 and image 0 have 0
    hinges = (0.5 - 1 + 1) + (0.5 - 0 + 1) + (0.5 - 0 + 0)
    assert contrastive_loss(audio, image, None, 0.5).item() == pytest.approx(hinges / 12)


def test_audio_direction_is_the_authors_loss() -> None:
    # where both directions cost the same, ours equals theirs: a symmetric similarity matrix
    audio, _ = batch(9, 5, seed=2)
    ours = contrastive_loss(audio, audio, None, 1.0)
    assert ours.item() == pytest.approx(authors(audio, audio, 1.0).item(), rel=1e-12)
    # elsewhere it is the mean of theirs both ways
    audio, image = batch(9, 5, seed=2)
    both = (authors(audio, image, 1.0) + authors(image, audio, 1.0)) / 2
    assert contrastive_loss(audio, image, None, 1.0).item() == pytest.approx(both.item(), rel=1e-12)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("with_classes", [False, True])
def test_nothing_to_compare_is_zero_with_zero_gradients(n: int, with_classes: bool) -> None:
    audio, image = batch(n, 3, seed=0)
    classes = torch.zeros(n, dtype=torch.int64) if with_classes else None
    loss = contrastive_loss(audio, image, classes, 1.0)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, (audio, image)):
        assert gradient.shape == (n, 3)
        assert not gradient.any()


def test_float32_is_close_to_float64_at_the_papers_batch() -> None:
    audio, image = batch(1500, 128, seed=5, dtype=torch.float32)
    loss = contrastive_loss(audio, image, None, 1.0)
    loss.backward()
    doubles = [side.detach().double().requires_grad_() for side in (audio, image)]
    reference = dense(*doubles, None, 1.0)
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    for found, wanted in zip((audio, image), doubles, strict=True):
        assert found.grad is not None and wanted.grad is not None
        error = (found.grad.double() - wanted.grad).norm() / wanted.grad.norm()
        # a hinge at its kink may fall on either side
        assert error < 1e-3


def test_one_side_may_be_fixed_and_upstream_scales() -> None:
    audio, image = batch(6, 3, seed=4)
    (full,) = torch.autograd.grad(contrastive_loss(audio, image, None, 1.0), [audio])
    loss = 3.0 * contrastive_loss(audio, image.detach(), None, 1.0)
    (scaled,) = torch.autograd.grad(loss, [audio])
    torch.testing.assert_close(scaled, 3.0 * full)
    with torch.no_grad():
        value = contrastive_loss(audio, image, None, 1.0)
    assert not value.requires_grad
    assert 3.0 * value.item() == pytest.approx(loss.item())


def test_inputs_are_left_alone() -> None:
    audio, image = batch(6, 3, seed=4)
    classes = torch.tensor([1, 0, 1, 2, 0, 0])
    before = [x.detach().clone() for x in (audio, image, classes)]
    contrastive_loss(audio, image, classes, 1.0).backward()
    for x, kept in zip((audio, image, classes), before, strict=True):
        assert torch.equal(x, kept)


@pytest.mark.parametrize("side", [0, 1])
def test_nan_shows_in_the_loss(side: int) -> None:
    sides = [x.detach() for x in batch(6, 3, seed=4)]
    sides[side][2, 1] = torch.nan
    assert contrastive_loss(*sides, None, 1.0).isnan()


def test_second_derivative_is_refused() -> None:
    audio, image = batch(4, 3, seed=0)
    loss = contrastive_loss(audio, image, None, 1.0)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(loss, [audio], create_graph=True)


@pytest.mark.parametrize(
    ("audio", "image", "classes", "message"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), None, "one shape"),
        (torch.ones(3), torch.ones(3), None, "one shape"),
        (torch.ones(3, 2), torch.ones(3, 2).double(), None, "float32 or float64"),
        (torch.ones(3, 2).half(), torch.ones(3, 2).half(), None, "float32 or float64"),
        (torch.ones(3, 2), torch.ones(3, 2), torch.ones(2), "as many classes"),
    ],
)
def test_wrong_arguments(
    audio: Tensor, image: Tensor, classes: Tensor | None, message: str
) -> None:
    with pytest.raises(AnymodalError, match=message):
        contrastive_loss(audio, image, classes, 1.0)
