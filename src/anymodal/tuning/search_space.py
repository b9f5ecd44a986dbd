"""From ranges in params.yaml to a trial's parameters.

The space always holds the values in use, which are the first trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from anymodal.config.section import Section
from anymodal.config.tuning import Range, SearchSpace
from anymodal.core.errors import AnymodalError

DIGITS = 4
"""Significant digits of a searched number."""

Space = dict[str, BaseDistribution]
Relevant = Callable[[str, Mapping[str, Any]], bool]
"""Whether a parameter matters, given the values of those before it."""
S = TypeVar("S", bound=Section)


def distributions(space: SearchSpace, current: Section) -> Space:
    """Optuna's distributions for what is searched, widened to hold the value in use.

    Raises `AnymodalError` where a range cannot hold it, as a logarithmic one cannot hold 0.
    """
    space_of: Space = {}
    for name, dimension in space.dimensions.items():
        value = getattr(current, name)
        if not isinstance(dimension, Range):
            choices = tuple(dict.fromkeys((*dimension, value)))
            space_of[name] = CategoricalDistribution(choices)
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or (dimension.log and value <= 0):
            raise AnymodalError(
                f"no {'logarithmic ' if dimension.log else ''}range holds the value in use of "
                f"{name}, {value!r}: give tune's {name} as a list of values that has it"
            )
        low, high = min(dimension.low, value), max(dimension.high, value)
        if isinstance(value, int):
            space_of[name] = IntDistribution(int(low), int(high), log=dimension.log)
        else:
            space_of[name] = FloatDistribution(float(low), float(high), log=dimension.log)
    return space_of


def suggest(trial: Trial, space: Space, relevant: Relevant) -> dict[str, Any]:
    """The trial's values of the parameters that matter."""

    def value_of(name: str) -> Any:
        each = space[name]
        if isinstance(each, CategoricalDistribution):
            return trial.suggest_categorical(name, each.choices)
        if isinstance(each, IntDistribution):
            return trial.suggest_int(name, each.low, each.high, log=each.log)
        assert isinstance(each, FloatDistribution)
        return trial.suggest_float(name, each.low, each.high, log=each.log)

    return _values(space, relevant, value_of)


def settings(chosen: Mapping[str, Any], current: S) -> S:
    """The parameters in use with a trial's values, which are rounded to `DIGITS`."""
    changed: dict[str, Any] = {}
    for name, value in chosen.items():
        old = getattr(current, name)
        if isinstance(value, float) and not (isinstance(old, float) and math.isclose(value, old)):
            value = float(f"{value:.{DIGITS}g}")
        changed[name] = old if value == old and type(value) is type(old) else value
    return type(current).model_validate(current.model_dump() | changed)


def in_use(space: Space, current: Section, relevant: Relevant) -> dict[str, Any]:
    """The values in use of the parameters that matter: the first trial."""
    return _values(space, relevant, lambda name: getattr(current, name))


def _values(space: Space, relevant: Relevant, value_of: Callable[[str], Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name in space:
        if relevant(name, chosen):
            chosen[name] = value_of(name)
    return chosen
