"""What can be tuned, and what every such thing has: parameters, a space, and a score.

Scores come from validation rows alone: no test row and no row of the retrieval subset is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from anymodal.champion import Decision
from anymodal.params import ClassifyParams, TranslateParams
from anymodal.resampling import Score
from anymodal.search_space import Space
from anymodal.stages.base import Context, seeds_of
from anymodal.tracking import StageRun

Report = Callable[[int, float], None]
"""Takes a step and the score so far; raises `optuna.TrialPruned` to end the trial."""
Answers = dict[str, np.ndarray]
"""What one training answered, by part of the score."""
S = TypeVar("S", TranslateParams, ClassifyParams)


class Unfit(Exception):
    """Parameters that nothing can be trained with, and why: a score that is as bad as can be."""


class Task(ABC, Generic[S]):
    """Something to tune, on one pair of encoders."""

    what: str
    section: str
    """Section of params.yaml that the parameters are in."""
    score: str
    """What a trial's score is."""
    current: S
    """The parameters in use."""
    space: Space
    step: str
    """What a trial reports a score after: an epoch or a seed."""
    steps: int
    """How many scores a trial reports at most."""

    @property
    @abstractmethod
    def depends_on(self) -> Mapping[str, Any]:
        """All but the search space that scores depend on, JSON values."""

    @abstractmethod
    def relevant(self, name: str, chosen: Mapping[str, Any]) -> bool:
        """Whether parameter `name` matters, given the values of those before it."""

    @abstractmethod
    def try_out(self, settings: S, seeds: Sequence[int], report: Report) -> list[float]:
        """The score of each seed; raises `Unfit`, and whatever `report` raises."""

    @abstractmethod
    def answers(self, settings: S, seed: int) -> Answers:
        """What a training with `seed` answers to the validation rows; raises `Unfit`."""

    @abstractmethod
    def rate(self, answers: Sequence[Answers]) -> tuple[Score, np.ndarray]:
        """The score of several seeds' answers, and the group of each of its items."""

    @abstractmethod
    def register(
        self, settings: S, seed: int, decision: Decision, run: StageRun, study: str
    ) -> str:
        """Register what `seed` trains as the champion; return its version."""


def trial_seeds(context: Context) -> list[int]:
    """The seeds of every trial."""
    return seeds_of(context.params.seed, context.params.tune.seeds)


def fresh_seeds(context: Context) -> list[int]:
    """Seeds that no trial and no stage has seen."""
    return seeds_of(context.params.seed + 1000, context.params.tune.confirm_seeds)
