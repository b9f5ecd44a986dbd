"""The section `tune` of params.yaml: how parameters are searched for, and where.

The fields of a search space are named like the parameters that they are searched for; whether the
values are possible ones is checked where those are known, in `anymodal.params`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from anymodal.section import Positive, Section

Scalar = bool | int | float | str | None
"""A value that a parameter can have."""


class Range(Section):
    """All values between two ends."""

    low: int | float
    """Lowest value."""
    high: int | float
    """Highest value."""
    log: bool = False
    """Whether orders of magnitude count alike, not steps."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) exceeds high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low}")
        return self


Dimension = Range | Annotated[tuple[Scalar, ...], Field(min_length=1)]
"""A range, or a list of values to choose from."""


class SearchSpace(Section):
    """Where to search: a range, a list of values, or null for a parameter to leave as it is."""

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """What is searched, by parameter."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: found for name, found in fields.items() if found is not None}

    def ends(self) -> Iterator[tuple[str, Scalar]]:
        """Each parameter with the values that have to be possible for all between them to be."""
        for name, found in self.dimensions.items():
            values = (found.low, found.high) if isinstance(found, Range) else found
            yield from ((name, value) for value in values)


class TranslationSpace(SearchSpace):
    """Where `tune` searches for the translation's parameters; see the section `translate`."""

    depth: Dimension | None = (1, 2, 3)
    """Linear layers of a branch."""
    hidden: Dimension | None = Range(low=64, high=1024, log=True)
    """Width of the hidden layers."""
    activation: Dimension | None = ("elu", "relu", "gelu")
    """Activation of the hidden layers."""
    dropout: Dimension | None = Range(low=0.0, high=0.5)
    """Share of hidden values dropped."""
    loss: Dimension | None = ("hinge", "infonce")
    """Which loss."""
    margin: Dimension | None = Range(low=0.1, high=1.5)
    """Margin, where the loss is the hinge."""
    temperature: Dimension | None = Range(low=0.02, high=0.5, log=True)
    """Temperature, where the loss is InfoNCE."""
    learning_rate: Dimension | None = Range(low=0.0001, high=0.01, log=True)
    """Adam's step size."""
    batch_size: Dimension | None = (64, 128, 256, 512)
    """Pairs a step."""
    weight_decay: Dimension | None = (0.0, 0.0001, 0.001, 0.01, 0.1)
    """Decoupled weight decay."""


class ForestSpace(SearchSpace):
    """Where `tune` searches for the random forest's parameters; see the section `classify`."""

    trees: Dimension | None = Range(low=50, high=500, log=True)
    """Trees of a forest."""
    max_depth: Dimension | None = (4, 8, 16, 32, 64, None)
    """Depth of a tree at most."""
    min_leaf: Dimension | None = Range(low=1, high=10, log=True)
    """Training rows in a leaf at least."""
    max_features: Dimension | None = ("sqrt", 0.02, 0.05, 0.2, 0.5, 1.0)
    """Features that a split chooses among."""


class TuneParams(Section):
    """The search for better parameters with Optuna, on validation rows alone (paper: none)."""

    what: Literal["translation", "forest", "both"] = "both"
    """What to search for: parameters of the translation, of the random forest, or of the one and
    then, on the translations it leads to, of the other."""
    trials: Positive = 40
    """Trials of a study in all, however many processes share it."""
    startup_trials: Positive = 10
    """Trials drawn at random before the sampler (TPE) learns from them, and completed ones before
    any is pruned."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials are given up early: those below the median of the others at the same epoch, or
    by Hyperband's halving."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    """Epochs of a trial before the median may end it: what learns slowly may end up ahead."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a process starts no further trial; null: no limit."""
    storage: str = "sqlite:///.anymodal/tuning.db"
    """Where the study is kept: any URL that Optuna takes; a relative SQLite path is of the project.
    Processes, and machines, with one URL share a study."""
    seeds: Annotated[int, Field(ge=2)] = 2
    """Trainings a trial, whose mean is its score."""
    confirm_seeds: Annotated[int, Field(ge=3)] = 8
    """Further seeds on which the best trial's parameters meet those in use."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """What the gain's confidence interval must lie above for parameters to change."""
    score_rows: Annotated[int, Field(ge=2)] = 2000
    """Validation rows a modality at most that score an epoch, for pruning; a trial's own score
    takes all."""
    heartbeat_s: Positive = 20
    """Seconds between a trial's signs of life; after three of them it counts as killed and is run
    anew."""
    translation: TranslationSpace = TranslationSpace()
    """Where to search for the translation."""
    forest: ForestSpace = ForestSpace()
    """Where to search for the forest."""
