"""The section `tune` of params.yaml: search spaces and how they are searched.

The fields of a space are named for the parameters; `anymodal.config.params` checks the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from anymodal.config.section import Positive, Section

Scalar = bool | int | float | str | None
"""A value that a parameter can have."""


class Range(Section):
    """All values between two ends."""

    low: int | float
    """Lowest value."""
    high: int | float
    """Highest value."""
    log: bool = False
    """Whether to search on a logarithmic scale."""

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
    """Per parameter a range, a list of values, or null for one that is not searched."""

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """The dimensions that are searched, by parameter."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: each for name, each in fields.items() if each is not None}

    def ends(self) -> Iterator[tuple[str, Scalar]]:
        """Each parameter with its values, or both ends of its range."""
        for name, each in self.dimensions.items():
            values = (each.low, each.high) if isinstance(each, Range) else each
            yield from ((name, value) for value in values)


class TranslationSpace(SearchSpace):
    """The search space of the section `translate`."""

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
    """Pairs per step."""
    weight_decay: Dimension | None = (0.0, 0.0001, 0.001, 0.01, 0.1)
    """Decoupled weight decay."""


class ForestSpace(SearchSpace):
    """The search space of the section `classify`."""

    trees: Dimension | None = Range(low=50, high=500, log=True)
    """Trees per forest."""
    max_depth: Dimension | None = (4, 8, 16, 32, 64, None)
    """Largest depth of a tree."""
    min_leaf: Dimension | None = Range(low=1, high=10, log=True)
    """Fewest training rows in a leaf."""
    max_features: Dimension | None = ("sqrt", 0.02, 0.05, 0.2, 0.5, 1.0)
    """Features that a split chooses among."""


class TuneParams(Section):
    """The search for better parameters with Optuna, on validation rows alone (paper: none)."""

    what: Literal["translation", "forest", "both"] = "both"
    """Which parameters: the translation's, the random forest's, or the first and then, on the
    translations that they give, the second."""
    trials: Positive = 40
    """Total trials of a study, however many processes share it."""
    startup_trials: Positive = 10
    """Trials drawn at random before the sampler (TPE) learns from them; also completed trials
    before any is pruned."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials end early: those below the median of the others at the same epoch, or by
    Hyperband's halving."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    """Epochs of a trial before the median may end it."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a process starts no further trial; null: no limit."""
    storage: str = "sqlite:///.anymodal/tuning.db"
    """URL of the study's database, as Optuna takes it; a relative SQLite path is resolved against
    the project. Processes, and machines, with one URL share a study."""
    seeds: Annotated[int, Field(ge=2)] = 2
    """Trainings per trial, whose mean is its score."""
    confirm_seeds: Annotated[int, Field(ge=3)] = 8
    """Further seeds on which the best trial's parameters are compared with those in use."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """The gain's confidence interval must lie above this for parameters to change."""
    score_rows: Annotated[int, Field(ge=2)] = 2000
    """Most validation rows per modality that score an epoch, for pruning; a trial's final score
    uses all."""
    heartbeat_s: Positive = 20
    """Seconds between a trial's heartbeats; after three missed ones it counts as killed and is run
    again."""
    translation: TranslationSpace = TranslationSpace()
    """Where to search for the translation."""
    forest: ForestSpace = ForestSpace()
    """Where to search for the forest."""
