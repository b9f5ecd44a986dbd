"""What a killed training resumes from: one safetensors file, in which nothing is pickled.

It holds the current and the best weights, Adam's moments, the history and a fingerprint of the
inputs. No random state: an epoch's randomness follows from the seed and the epoch's number.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from anymodal.core.storage import atomic_path

log = logging.getLogger(__name__)

FORMAT = 1


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
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in progress.best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "best_loss": progress.best_loss,
    }
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={"training": json.dumps(header)})


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
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["training"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT or header["fingerprint"] != fingerprint:
            log.warning("%s belongs to other data or settings: training starts again", path)
            return None
        state = _part(tensors, "model.")
        progress = Progress(
            [dict(entry) for entry in header["history"]],
            int(header["best_epoch"]),
            float(header["best_loss"]),
            {k: v.to(model.state_dict()[k].device) for k, v in _part(tensors, "best.").items()},
        )
        adam: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, "adam.").items():
            index, name = key.split(".", 1)
            adam.setdefault(int(index), {})[name] = value
        expected = {key: value.shape for key, value in model.state_dict().items()}
        if any({k: v.shape for k, v in s.items()} != expected for s in (state, progress.best)):
            raise ValueError("the weights' shapes differ")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        log.warning("%s is not a readable checkpoint (%s): training starts again", path, error)
        return None
    model.load_state_dict(state)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": adam})
    return progress


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
