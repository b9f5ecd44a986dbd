"""The trainings of a pair's translations: kept when finished, resumed when killed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from anymodal.config.params import TranslateParams
from anymodal.core.errors import AnymodalError
from anymodal.core.record import Pairing, Record

if TYPE_CHECKING:
    from anymodal.projection.training_data import TrainingData

HISTORY = "history.json"
"""Beside each translation: its training, and the fingerprint of its inputs."""


class Epoch(Record):
    """Losses of one epoch; None where they are not finite."""

    epoch: int
    train_loss: float | None
    valid_loss: float | None
    seconds: float


class Training(Record):
    """One training of a translation."""

    seed: int
    best_epoch: int
    epochs: int
    valid_loss: float
    """Of the best epoch."""
    history: tuple[Epoch, ...]


class _Finished(Training):
    inputs: str


class PairTrainings(Record):
    """The trainings of one pair of encoders, one per seed."""

    audio: str
    image: str
    pair: str
    pairing: Pairing
    pairs_per_epoch: int
    seeds: tuple[Training, ...]

    @property
    def best(self) -> Training:
        """The training with the lowest validation loss."""
        return min(self.seeds, key=lambda training: training.valid_loss)


def train_or_load(
    data: TrainingData,
    settings: TranslateParams,
    seed: int,
    folder: Path,
    checkpoint: Path,
    progress: Callable[[], AbstractContextManager[Callable[[int, int], None]]],
    inputs: str = "",
) -> Training:
    """Make sure that `folder` holds the translation of `data`; return its training.

    A finished training with the same inputs is kept, a killed one resumes from `checkpoint`.
    `progress` is opened where there is something to train, and called with (epoch, most epochs).
    `inputs` is `data.fingerprint(settings)`, where the caller has it.
    """
    inputs = inputs or data.fingerprint(settings)
    if (training := finished(folder, inputs)) is not None:
        return training
    with progress() as advance:
        result = data.fit(
            settings,
            seed,
            checkpoint=checkpoint,
            on_epoch=lambda entry: advance(int(entry["epoch"]), settings.max_epochs),
        )
    result.translation.save(folder)
    training = Training(
        seed=seed,
        best_epoch=result.best_epoch,
        epochs=len(result.history),
        valid_loss=min(entry["valid_loss"] for entry in result.history),
        history=tuple(Epoch.model_validate(entry) for entry in result.history),
    )
    _Finished(inputs=inputs, **dict(training)).write(folder / HISTORY)
    return training


def finished(folder: Path, inputs: str) -> Training | None:
    """The training that `folder` holds, if it had the same inputs."""
    try:
        training = _Finished.read(folder / HISTORY, "translate").model_dump()
    except AnymodalError:
        return None
    return Training(**training) if training.pop("inputs") == inputs else None
