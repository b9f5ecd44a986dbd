"""InfoNCE (van den Oord et al. 2018; both directions as in CLIP, Radford et al. 2021).

An alternative to the hinge of `anymodal.projection.losses`. With S = A Iᵀ / temperature and N(i)
the true negatives of row i, the loss is the mean over all rows of

    audio → image   log(exp S[i, i] + Σ_{j ∈ N(i)} exp S[i, j]) − S[i, i]
    image → audio   log(exp S[i, i] + Σ_{j ∈ N(i)} exp S[j, i]) − S[i, i]

averaged over the two directions. All similarities of a batch are held at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anymodal.core.errors import AnymodalError
from anymodal.projection.losses import check_batch


def infonce_loss(
    audio: Tensor, image: Tensor, classes: Tensor | None, temperature: float
) -> Tensor:
    """Mean cross-entropy of a pair among the true negatives of a batch, both directions.

    Parameters are as in `contrastive_loss`; cosines are divided by `temperature`, above 0. Without
    any negative the loss is 0 with zero gradients.
    """
    check_batch(audio, image, classes)
    if not temperature > 0:
        raise AnymodalError(f"the loss needs a temperature above 0, not {temperature}")
    if not len(audio):
        return (audio.sum() + image.sum()) * 0
    similarity = audio @ image.T / temperature
    pair = similarity.diagonal()
    if classes is not None:
        classes = classes.to(audio.device)
        excluded = classes[:, None] == classes
        excluded.fill_diagonal_(False)
        similarity = similarity.masked_fill(excluded, float("-inf"))
    forth, back = torch.logsumexp(similarity, 1), torch.logsumexp(similarity, 0)
    return ((forth + back) / 2 - pair).mean()
