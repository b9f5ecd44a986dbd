"""The translation: one small network per modality, both ending in one space (paper, section 2.2).

Standardise → Linear(d → hidden) → BatchNorm → ELU → Linear(hidden → dim) → L2. All but the first
step is the authors' network: they feed raw embeddings, but encoders differ in scale by orders of
magnitude. More hidden layers, other activations and dropout are options.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.projection.artifact import Artifact
from anymodal.projection.base import BLOCK, Projection

_CONSTANT = 1e-6
"""A feature whose deviation is below this share of its mean is float32 rounding, not signal."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": nn.functional.elu,
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
}
DEPTH, ACTIVATION = 2, "elu"


class Branch(nn.Module):
    """One modality's network of `depth` linear layers, the last without an activation."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int,
        hidden: int,
        dim: int,
        depth: int = DEPTH,
        activation: str = ACTIVATION,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout
        # the first hidden layer keeps the names that it had when there was no other
        numbers = ["", *range(2, depth)][: depth - 1]
        self.names = [(f"hidden{n}", f"norm{n}") for n in numbers]
        width = features
        for linear, norm in self.names:
            # skip_init leaves the global random state as it is
            self.add_module(linear, nn.utils.skip_init(nn.Linear, width, hidden))
            self.add_module(norm, nn.BatchNorm1d(hidden))
            width = hidden
        self.out = nn.utils.skip_init(nn.Linear, width, dim)

    def initialise(self, generator: torch.Generator) -> None:
        """PyTorch's default for linear layers, drawn from `generator`."""
        hidden = (cast(nn.Linear, self.get_submodule(linear)) for linear, _ in self.names)
        for layer in (*hidden, self.out):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, features) → (n, dim), rows of unit length; `generator` is dropout's, in training."""
        x = (x - self.mean).mul_(self.scale)
        for linear, norm in self.names:
            x = self.activation(self.get_submodule(norm)(self.get_submodule(linear)(x)))
            if self.training and self.dropout:
                kept = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=generator)
                x = x * kept.div_(1 - self.dropout)
        return unit_rows(self.out(x))


class Translation(nn.Module, Projection):
    """Both branches; a new one has seeded weights and scalers that change nothing."""

    kind = "translation"
    generator: torch.Generator | None = None
    """Dropout's, while training; None: PyTorch's global state."""

    def __init__(
        self,
        audio_dim: int,
        image_dim: int,
        hidden: int = 256,
        dim: int = 128,
        seed: int = 0,
        *,
        depth: int = DEPTH,
        activation: str = ACTIVATION,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.branches = nn.ModuleDict()
        for modality, features in zip(MODALITIES, (audio_dim, image_dim), strict=True):
            branch = Branch(features, hidden, dim, depth, activation, dropout)
            branch.initialise(generator)
            self.branches[modality] = branch
        self.dim = dim
        self.dims = {"audio": audio_dim, "image": image_dim}
        self._shape = {"depth": depth, "activation": activation}

    def forward(self, audio: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Joint vectors of (n, audio_dim) and (n, image_dim)."""
        generator = self.generator
        return self.branches["audio"](audio, generator), self.branches["image"](image, generator)

    def set_scaler(self, modality: Modality, mean: np.ndarray, scale: np.ndarray) -> None:
        """Standardise `modality` as (x − mean) · scale."""
        branch = self._branch(modality)
        branch.mean.copy_(torch.as_tensor(mean))
        branch.scale.copy_(torch.as_tensor(scale))

    def _branch(self, modality: Modality) -> Branch:
        return cast(Branch, self.branches[modality])

    def _projector(self, modality: Modality) -> Callable[[np.ndarray], np.ndarray]:
        # a copy: projecting must not switch a module that is still training, nor move its weights
        branch = copy.deepcopy(self._branch(modality)).cpu().double().eval()

        def project(x: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return branch(torch.from_numpy(x)).numpy()

        return project

    def _arrays(self) -> dict[str, np.ndarray]:
        return {key: value.cpu().numpy() for key, value in self.state_dict().items()}

    def save(self, folder: str | Path) -> None:
        """Write the artifact, whose settings include depth and activation."""
        if self.origin is not None:
            settings = {**self.origin.settings, **self._shape}
            self.origin = dataclasses.replace(self.origin, settings=settings)
        super().save(folder)

    @classmethod
    def from_artifact(cls, artifact: Artifact, folder: str | Path) -> Translation:
        """The translation that `artifact`, read from `folder`, holds."""
        arrays = artifact.arrays
        hidden = len(arrays.get("branches.audio.hidden.bias", np.empty(1)))
        origin = artifact.origin
        try:
            translation = cls(
                origin.audio.dim,
                origin.image.dim,
                hidden,
                artifact.dim,
                depth=int(origin.settings.get("depth", DEPTH)),
                activation=str(origin.settings.get("activation", ACTIVATION)),
            )
            translation.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise AnymodalError(
                f"the projection in {folder} holds other weights than its projection.json says: "
                "run `anymodal translate` again"
            ) from error
        translation.origin = origin
        return translation.eval()


def unit_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows at unit length; rows shorter than `eps` become zero, with zero gradient."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(norm > eps, norm, torch.inf)


def fit_scaler(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse standard deviation, float64 (d,), of `x[rows]`.

    A feature that is constant there gets the inverse 0: nothing can be learned about it.
    """
    if not len(rows):
        raise AnymodalError("no rows to fit the scaler on")
    shift = x[rows[:BLOCK]].mean(axis=0, dtype=np.float64)
    total, squares = np.zeros_like(shift), np.zeros_like(shift)
    for start in range(0, len(rows), BLOCK):
        part = x[rows[start : start + BLOCK]] - shift
        total += part.sum(axis=0)
        squares += np.einsum("ij,ij->j", part, part)
    offset = total / len(rows)
    mean = shift + offset
    deviation = np.sqrt(np.maximum(squares / len(rows) - offset**2, 0.0))
    varies = deviation > _CONSTANT * np.abs(mean)
    return mean, np.divide(1.0, deviation, out=np.zeros_like(mean), where=varies)
