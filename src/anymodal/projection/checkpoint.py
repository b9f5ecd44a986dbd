"""What a killed training resumes from: one file of `torch.save`, loaded as weights only, which
executes no code.

It holds the current and the best weights, Adam's moments, the history and a fingerprint of the
inputs. No random state: an epoch's randomness follows from the seed and the epoch's number.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from anymodal.core.storage import atomic_path

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """The state of a training."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One entry per epoch: epoch (from 1), train_loss, valid_loss, seconds."""
    best_epoch: int = 0
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    """State of the model after the best epoch."""

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def stale(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch

    def record(self, entry: dict[str, float], model: torch.nn.Module) -> None:
        """Add an epoch's entry, and keep the weights if none before had a lower valid_loss."""
        self.history.append(entry)
        if entry["valid_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = entry["valid_loss"], self.epoch
            self.best = {key: value.clone() for key, value in model.state_dict().items()}


def save_checkpoint(
    path: Path,
    fingerprint: str,
    progress: Progress,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write the checkpoint, over an older one."""
    state = {
        "fingerprint": fingerprint,
        "progress": vars(progress),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    path: Path,
    fingerprint: str,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
) -> Progress | None:
    """Restore `model` and `optimiser` from `path`, and return the progress.

    A checkpoint that is corrupt or belongs to other data or settings is logged and ignored: None is
    returned, and both stay as they were.
    """
    if not path.exists():
        return None
    try:
        # opened here: of a path, torch.load looks at the suffix
        with path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        progress = Progress(**state["progress"])
        own = state["fingerprint"] == fingerprint
    # a damaged archive raises almost anything
    except Exception as error:
        reason = str(error).partition("\n")[0]
        log.warning("%s is not a readable checkpoint (%s): training starts again", path, reason)
        return None
    if not own:
        log.warning("%s belongs to other data or settings: training starts again", path)
        return None
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return progress
