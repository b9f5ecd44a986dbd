"""What can be tuned: parameters with a search space and a score on validation rows alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from anymodal.config.params import ClassifyParams, TranslateParams
from anymodal.evaluation.resampling import Score
from anymodal.tracking.promotion import Decision
from anymodal.tracking.runs import StageRun
from anymodal.tuning.search_space import Space

Report = Callable[[int, float], None]
"""Of a step and the score so far; raises `optuna.TrialPruned` to end the trial."""
Answers = dict[str, np.ndarray]
"""Answers of one training, by part of the score."""
S = TypeVar("S", TranslateParams, ClassifyParams)


class Unfit(Exception):
    """Parameters that nothing can be trained with, and why."""


class Task(ABC, Generic[S]):
    """Parameters to tune, on one pair of encoders."""

    what: str
    section: str
    """Section of params.yaml that the parameters are in."""
    score: str
    """Name of a trial's score."""
    current: S
    """The parameters in use."""
    space: Space
    step: str
    """After what a trial reports a score: `epoch` or `seed`."""
    steps: int
    """Most scores that a trial reports."""

    @property
    @abstractmethod
    def depends_on(self) -> Mapping[str, Any]:
        """Everything but the search space that scores depend on."""

    @abstractmethod
    def relevant(self, name: str, chosen: Mapping[str, Any]) -> bool:
        """Whether parameter `name` matters, given the values of those before it."""

    @abstractmethod
    def try_out(self, settings: S, seeds: Sequence[int], report: Report) -> list[float]:
        """The score of each seed; raises `Unfit`, and whatever `report` raises."""

    @abstractmethod
    def answers(self, settings: S, seed: int) -> Answers:
        """The answers of a training with `seed` to the validation rows; raises `Unfit`."""

    @abstractmethod
    def rate(self, answers: Sequence[Answers]) -> tuple[Score, np.ndarray]:
        """The score of several seeds' answers, and the group of each of its items."""

    @abstractmethod
    def register(
        self, settings: S, seed: int, decision: Decision, run: StageRun, study: str
    ) -> str:
        """Register the training of `seed` as the champion; return its version."""
