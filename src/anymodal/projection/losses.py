"""The contrastive loss that brings the two modalities into one space (paper, sections 2.2 and 3.2).

Row i of `audio` (A) and of `image` (I) are a pair; S = A Iᵀ. With h(i, j; anchor) = max(0, margin −
S[anchor, anchor] + S[i, j]) the loss is the mean, over all ordered (i, j) that are true negatives,
of h(i, j; i) for audio → image and h(i, j; j) for image → audio, averaged over the two directions.
The authors' code has the first direction alone.

The gradient with respect to S is a matrix of small counts, G[i, j] = [h(i, j; i) > 0] +
[h(i, j; j) > 0], and the sum of the hinges is <G, S> + Σ_i (margin − S[i, i]) · k_i, where k_i
counts the active hinges anchored at i. As <G, S> = Σ A ∘ (G I), the product that the gradient needs
gives the value too; a few rows of S at a time suffice, and nothing of batch × batch is ever held.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anymodal.core.errors import AnymodalError

_CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24, "mps": 2**24}
"""Similarities held at a time: on a CPU what stays in cache, on a GPU what keeps it busy."""


def contrastive_loss(
    audio: Tensor,
    image: Tensor,
    classes: Tensor | None,
    margin: float,
    chunk: int | None = None,
) -> Tensor:
    """Mean hinge over the true negatives of a batch, both directions.

    Parameters
    ----------
    audio, image : (n, dim), both float32 or float64, on one device; row i of both is a pair
    classes : integers (n,), or None for the paper's rule that every other row is a negative.
        With classes, another row of the same class is neither negative nor positive.
    margin : by how much a pair's similarity must exceed that of its negatives
    chunk : rows of similarities held at a time; bounds memory, changes only the rounding

    Returns a scalar that can be differentiated once. Without any negative it is 0 with zero
    gradients. Raises `AnymodalError` for shapes that do not match.
    """
    check_batch(audio, image, classes)
    value: Tensor = _Contrastive.apply(audio, image, classes, float(margin), chunk)
    return value


class _Contrastive(torch.autograd.Function):
    """Value and gradients in one pass; backward only scales the gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        audio: Tensor,
        image: Tensor,
        classes: Tensor | None,
        margin: float,
        chunk: int | None,
    ) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        layout = None if classes is None else _Layout(classes, audio.device)
        if layout is not None:
            audio, image = audio[layout.order], image[layout.order]
        value, grads = _value_and_gradients(audio, image, layout, margin, chunk, wants_gradient)
        if grads is not None:
            if layout is not None:
                grads = tuple(grad[layout.inverse] for grad in grads)
            ctx.save_for_backward(*grads)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: the gradients would pass for constants
            raise RuntimeError("contrastive_loss cannot be differentiated twice")
        audio, image = ctx.saved_tensors
        return upstream * audio, upstream * image, None, None, None


class _Layout:
    """The batch sorted by class, so that a chunk's same-class rows are one run of columns."""

    def __init__(self, classes: Tensor, device: torch.device) -> None:
        # on the CPU: the runs' ends steer the loop, and asking a GPU for each would stall it
        ordered, order = torch.sort(classes.detach().cpu(), stable=True)
        _, sizes = torch.unique_consecutive(ordered, return_counts=True)
        last = torch.cumsum(sizes, 0)
        self.start = torch.repeat_interleave(last - sizes, sizes)
        self.end = torch.repeat_interleave(last, sizes)
        self.negatives = len(order) ** 2 - int((sizes**2).sum())
        self.order = order.to(device)
        self.inverse = torch.argsort(order).to(device)
        self.classes = ordered.to(device)


def _value_and_gradients(
    audio: Tensor,
    image: Tensor,
    layout: _Layout | None,
    margin: float,
    chunk: int | None,
    wants_gradient: bool,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    n = len(audio)
    negatives = n * (n - 1) if layout is None else layout.negatives
    if negatives == 0:
        zeros = (torch.zeros_like(audio), torch.zeros_like(image)) if wants_gradient else None
        return audio.new_zeros(()), zeros
    rows = min(n, chunk or max(1, _CHUNK_ELEMENTS.get(audio.device.type, 2**20) // n))
    pair = (audio * image).sum(1)
    threshold = pair - margin
    active = torch.empty_like(pair)  # k: hinges anchored at a row that are above zero
    active_image = torch.zeros_like(pair)
    towards = torch.empty_like(audio)  # G I, the gradient of the first term by audio
    from_audio = torch.zeros_like(image) if wants_gradient else None  # Gᵀ A
    buffer = audio.new_empty((rows, n))
    first = torch.empty((rows, n), dtype=torch.bool, device=audio.device)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        counts = torch.mm(audio[start:stop], image.T, out=buffer[: stop - start])
        _neutralise(counts, start, stop, layout)
        above = torch.gt(counts, threshold[start:stop, None], out=first[: stop - start])
        counts.gt_(threshold)
        active_image += counts.sum(0)
        torch.sum(above, 1, dtype=pair.dtype, out=active[start:stop])
        counts += above
        torch.mm(counts, image, out=towards[start:stop])
        if from_audio is not None:
            from_audio.addmm_(counts.T, audio[start:stop])
    active += active_image
    scale = 0.5 / negatives
    value = ((audio * towards).sum() - (threshold * active).sum()) * scale
    if from_audio is None:
        return value, None
    towards.addcmul_(active[:, None], image, value=-1).mul_(scale)
    from_audio.addcmul_(active[:, None], audio, value=-1).mul_(scale)
    return value, (towards, from_audio)


def _neutralise(similarity: Tensor, start: int, stop: int, layout: _Layout | None) -> None:
    """Set everything but the negatives of rows start … stop to −inf, which no hinge reaches."""
    if layout is None:
        similarity.diagonal(start).fill_(float("-inf"))
        return
    left, right = int(layout.start[start]), int(layout.end[stop - 1])
    same = layout.classes[start:stop, None] == layout.classes[left:right]
    similarity[:, left:right].masked_fill_(same, float("-inf"))


def check_batch(audio: Tensor, image: Tensor, classes: Tensor | None) -> None:
    """Raise `AnymodalError` for shapes and dtypes that do not match."""
    if audio.ndim != 2 or audio.shape != image.shape:
        raise AnymodalError(
            "the loss compares two (n, d) batches of one shape, "
            f"not {tuple(audio.shape)} with {tuple(image.shape)}"
        )
    # counts of hinges run up to n, which the half types cannot hold
    if audio.dtype not in (torch.float32, torch.float64) or audio.dtype != image.dtype:
        raise AnymodalError(
            f"the loss needs both batches in float32 or float64, not {audio.dtype}, {image.dtype}"
        )
    if classes is not None and classes.shape != audio.shape[:1]:
        raise AnymodalError(f"{len(audio)} pairs need as many classes, not {tuple(classes.shape)}")
