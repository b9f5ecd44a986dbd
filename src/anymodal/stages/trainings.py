"""One training of a translation, kept as it is done: a run that was killed, or is repeated, goes
on from there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from anymodal.params import TranslateParams
from anymodal.stages.base import Advance
from anymodal.stages.translation_data import TranslationData
from anymodal.storage import read_json, write_json

HISTORY = "history.json"
"""Beside each translation: how its training went, and the fingerprint of what went into it."""


def trained(
    data: TranslationData,
    settings: TranslateParams,
    seed: int,
    folder: Path,
    checkpoint: Path,
    progress: Callable[[], AbstractContextManager[Advance]],
    inputs: str = "",
) -> dict[str, Any]:
    """Make sure that `folder` holds the translation of `data`; return how its training went.

    A finished training whose inputs are unchanged is kept, a killed one resumes from `checkpoint`.
    `progress` is opened where there is something to train; it is told of epochs. `inputs` is the
    data's fingerprint, where the caller knows it.
    """
    inputs = inputs or data.fingerprint(settings)
    told = finished(folder, inputs)
    if told is not None:
        return told
    with progress() as advance:
        result = data.fit(
            settings,
            seed,
            checkpoint=checkpoint,
            on_epoch=lambda entry: advance(int(entry["epoch"]), settings.max_epochs),
        )
    result.translation.save(folder)
    training = {
        "seed": seed,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "valid_loss": min(entry["valid_loss"] for entry in result.history),
        "history": result.history,
    }
    write_json(folder / HISTORY, {"inputs": inputs, **training})
    return training


def finished(folder: Path, inputs: str) -> dict[str, Any] | None:
    """The training that `folder` holds, if it is of the same inputs."""
    if not (folder / HISTORY).is_file():
        return None
    told = read_json(folder / HISTORY)
    return told if told.pop("inputs", None) == inputs else None
