"""Training the translation (paper, section 3.2).

Adam on the contrastive loss over shuffled batches of pairs, until the validation loss has not
fallen for `patience` epochs; the best epoch's weights are kept.

Epoch e draws its pairs, their order and dropout from `default_rng([seed, e])`, so a resumed
training sees what an uninterrupted one would have.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anymodal.config.params import TranslateParams
from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import fingerprint
from anymodal.core.modality import Modality
from anymodal.data.pairing import Pairs
from anymodal.encoders.torch_encoder import resolve_device
from anymodal.projection.artifact import Origin
from anymodal.projection.base import check_embeddings
from anymodal.projection.batches import Batches, EpochPairs, check_pairs
from anymodal.projection.checkpoint import Progress, load_checkpoint, save_checkpoint
from anymodal.projection.infonce import infonce_loss
from anymodal.projection.losses import contrastive_loss
from anymodal.projection.translation import Translation, fit_scaler

log = logging.getLogger(__name__)

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Of the joint vectors of both modalities and the pairs' classes."""


class Divergence(AnymodalError):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class TrainingResult:
    """A trained translation, on the CPU and in eval mode, and its training."""

    translation: Translation
    history: list[dict[str, float]]
    """One entry per epoch: epoch (from 1), train_loss, valid_loss, seconds, what was measured."""
    best_epoch: int
    """The epoch whose weights `translation` has."""
    device: str
    """Where it was trained."""


def train_translation(
    audio: np.ndarray,
    image: np.ndarray,
    train_pairs: EpochPairs,
    valid_pairs: Pairs,
    params: TranslateParams,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    *,
    measure: Callable[[Translation], Mapping[str, float]] | None = None,
    train_rows: tuple[np.ndarray, np.ndarray] | None = None,
    origin: Origin | None = None,
    checkpoint_seconds: float = 10.0,
) -> TrainingResult:
    """Train both branches.

    Parameters
    ----------
    audio, image : embeddings (n, da) and (m, di); float32 is used without a copy
    train_pairs : draws an epoch's pairs, such as `PairSampler.epoch`
    valid_pairs : the pairs of the validation loss
    checkpoint : file that a killed training resumes from, written at most every
        `checkpoint_seconds` and removed at the end
    on_epoch : called with the history entry of every epoch that this call trained
    measure : called with the translation after every epoch; its numbers join the history entry
    train_rows : rows that the scalers are fitted on; None: those of the first epoch's pairs
    origin : goes into the translation, with seed and settings filled in; needed for saving it

    Raises `AnymodalError` for bad inputs and a missing device, and `Divergence` when the loss is no
    longer finite.
    """
    target = resolve_device(params.device)
    audio, image = _matrix(audio, "audio"), _matrix(image, "image")
    sizes, with_classes = (len(audio), len(image)), not params.same_class_negatives
    valid = check_pairs(valid_pairs, sizes, with_classes, "validation")
    first = check_pairs(train_pairs(_rng(seed, 1)), sizes, with_classes, "training")
    rows = train_rows or first[:2]

    model = Translation(
        audio.shape[1],
        image.shape[1],
        params.hidden,
        params.dim,
        seed,
        depth=params.depth,
        activation=params.activation,
        dropout=params.dropout,
    )
    model.set_scaler("audio", *fit_scaler(audio, np.unique(rows[0])))
    model.set_scaler("image", *fit_scaler(image, np.unique(rows[1])))
    model.to(target)
    optimiser, loss = _optimiser(model, params), _loss(params)

    progress, inputs = Progress(), ""
    identity = params.model_dump(exclude={"seeds", "device"})
    if checkpoint is not None:
        settings = sorted(identity.items())
        inputs = fingerprint(settings, seed, target.type, audio, image, *valid, *first, *rows)
        progress = load_checkpoint(checkpoint, inputs, model, optimiser) or progress
        if progress.epoch:
            log.info("resuming after epoch %d from %s", progress.epoch, checkpoint)

    batches = Batches(audio, image, target, params.batch_size, with_classes)
    # class after class would leave whole batches without a negative
    valid = _shuffled(valid, _rng(seed, 0))
    saved = time.monotonic()
    while progress.epoch < params.max_epochs and progress.stale < params.patience:
        began, epoch = time.perf_counter(), progress.epoch + 1
        rng = _rng(seed, epoch)
        pairs = _shuffled(check_pairs(train_pairs(rng), sizes, with_classes, "training"), rng)
        if params.dropout:
            model.generator = torch.Generator(target).manual_seed(int(rng.integers(2**63)))
        entry = {
            "epoch": epoch,
            "train_loss": _run_epoch(model, batches, pairs, loss, optimiser),
            "valid_loss": _run_epoch(model, batches, valid, loss),
        }
        for name, value in entry.items():
            if not math.isfinite(value):
                raise Divergence(
                    f"{name} became {value} in epoch {epoch}: lower translate.learning_rate, and "
                    "look for outliers in the embeddings"
                )
        entry["seconds"] = time.perf_counter() - began
        if measure is not None:
            entry |= measure(model)
        progress.record(entry, model)
        if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
            save_checkpoint(checkpoint, inputs, progress, model, optimiser)
            saved = time.monotonic()
        if on_epoch is not None:
            on_epoch(dict(entry))

    model.load_state_dict(progress.best)
    if origin is not None:
        trained_with = {**origin.settings, **identity, "best_epoch": progress.best_epoch}
        model.origin = dataclasses.replace(origin, seed=seed, settings=trained_with)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    model.generator = None
    return TrainingResult(model.cpu().eval(), progress.history, progress.best_epoch, target.type)


def _optimiser(model: Translation, params: TranslateParams) -> torch.optim.Optimizer:
    if not params.weight_decay:
        return torch.optim.Adam(model.parameters(), lr=params.learning_rate)
    matrices = [weights for weights in model.parameters() if weights.ndim > 1]
    others = [weights for weights in model.parameters() if weights.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=params.learning_rate, weight_decay=params.weight_decay)


def _loss(params: TranslateParams) -> Loss:
    if params.loss == "infonce":
        return lambda audio, image, classes: infonce_loss(audio, image, classes, params.temperature)
    return lambda audio, image, classes: contrastive_loss(audio, image, classes, params.margin)


def _run_epoch(
    model: Translation,
    batches: Batches,
    pairs: Pairs,
    loss_of: Loss,
    optimiser: torch.optim.Optimizer | None = None,
) -> float:
    """Mean loss per pair of one pass over `pairs`, which trains if there is an optimiser."""
    model.train(optimiser is not None)
    total = torch.zeros((), device=batches.device)
    with torch.set_grad_enabled(optimiser is not None):
        for audio, image, classes, size in batches.of(pairs):
            joint_audio, joint_image = model(audio, image)
            loss = loss_of(joint_audio, joint_image, classes)
            if optimiser is not None:
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            # stays on the device: reading each batch's loss would stall a GPU
            total += loss.detach() * size
    return total.item() / len(pairs[0])


def _rng(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def _shuffled(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    order = rng.permutation(len(pairs.audio))
    return Pairs(*(part[order] for part in pairs))


def _matrix(x: np.ndarray, modality: Modality) -> np.ndarray:
    return np.ascontiguousarray(check_embeddings(x, modality), dtype=np.float32)
