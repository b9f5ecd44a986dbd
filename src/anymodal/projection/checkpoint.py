"""Where a training stands, in one file: what a killed training resumes from.

A checkpoint is one safetensors file (nothing is pickled) with the current and the best weights,
Adam's moments, and in its header the history and a fingerprint of everything that the training
depends on. No random state is in it: an epoch's randomness follows from the seed and the epoch's
number (see `anymodal.projection.training`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from anymodal.projection.base import BLOCK
from anymodal.storage import atomic_path

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass
class Progress:
    """How far a training has come."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One entry an epoch: epoch (from 1), train_loss, valid_loss, seconds."""
    best_epoch: int = 0
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    """State of the model after the best epoch."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
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
    """Bring `model` and `optimiser` to where `path` stands, and return how far that is.

    None, with a line in the log and both left as they were, for a checkpoint that is corrupt or
    belongs to other data or settings.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["training"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT or header["fingerprint"] != fingerprint:
            log.warning("%s belongs to other data or settings: training starts anew", path)
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
        log.warning("%s is no readable checkpoint (%s): training starts anew", path, error)
        return None
    model.load_state_dict(state)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": adam})
    return progress


def fingerprint_of(settings: dict[str, Any], *arrays: np.ndarray) -> str:
    """Hash of JSON `settings` and of the arrays' types, shapes and values."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        for start in range(0, len(array), BLOCK):
            digest.update(np.ascontiguousarray(array[start : start + BLOCK]).data)
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
