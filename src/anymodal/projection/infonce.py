"""InfoNCE, an alternative to the hinge of `anymodal.projection.losses`.

The paper's hinge looks at every negative alone; InfoNCE (van den Oord et al. 2018; both ways at
once as in CLIP, Radford et al. 2021; the idea of telling a pair from noise is the paper's reference
27) asks of each row which of the batch is its own.

Definition
----------
Row i of `audio` (A) and row i of `image` (I) are a pair, S = A Iᵀ / temperature, and N(i) are the
rows that are true negatives of row i, the same as the hinge's. The loss is the mean over all rows
of

    audio → image   log(exp S[i, i] + Σ_{j ∈ N(i)} exp S[i, j]) − S[i, i]
    image → audio   log(exp S[i, i] + Σ_{j ∈ N(i)} exp S[j, i]) − S[i, i]

averaged over the two directions. A row without negatives adds 0.

All similarities of a batch are held at once: at 4,096 pairs 64 MiB each for S and its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anymodal.errors import AnymodalError


def infonce_loss(
    audio: Tensor, image: Tensor, classes: Tensor | None, temperature: float
) -> Tensor:
    """Mean cross-entropy of telling a pair from the true negatives of a batch, both directions.

    Parameters
    ----------
    audio, image : (n, d), both of one floating type, one device; row i of both is a pair
    classes : (n,) integers, or None where every other row is a negative. With classes, another
        row of the same class is neither negative nor positive.
    temperature : what cosines are divided by, above 0

    Returns a scalar. Without any negative (n < 2, or one class) it is 0 with zero gradients. Raises
    `AnymodalError` on shapes that do not match and on a temperature that is not above 0.
    """
    if audio.ndim != 2 or audio.shape != image.shape:
        raise AnymodalError(
            "the loss compares two (n, d) batches of one shape, "
            f"not {tuple(audio.shape)} with {tuple(image.shape)}"
        )
    if classes is not None and classes.shape != audio.shape[:1]:
        raise AnymodalError(f"{len(audio)} pairs need as many classes, not {tuple(classes.shape)}")
    if not temperature > 0:
        raise AnymodalError(f"the loss needs a temperature above 0, not {temperature}")
    if not len(audio):
        return (audio.sum() + image.sum()) * 0
    similarity = audio @ image.T / temperature
    pair = similarity.diagonal()
    if classes is not None:
        classes = classes.to(audio.device)
        left_out = classes[:, None] == classes
        left_out.fill_diagonal_(False)
        similarity = similarity.masked_fill(left_out, float("-inf"))
    forth, back = torch.logsumexp(similarity, 1), torch.logsumexp(similarity, 0)
    return ((forth + back) / 2 - pair).mean()
