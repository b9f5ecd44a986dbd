"""From ranges in params.yaml to a trial's parameters, and to axes that they can be drawn on.

The space always holds the values in use, which are the first trial: a search that cannot say how
the values in use fare has nothing to compare with.
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

from anymodal.errors import AnymodalError
from anymodal.section import Section
from anymodal.tune_params import Range, SearchSpace

DIGITS = 4
"""Significant digits of a searched number: more would suggest a precision that is not there."""

Space = dict[str, BaseDistribution]
Relevant = Callable[[str, Mapping[str, Any]], bool]
"""Whether a parameter matters, given the values of those before it."""
S = TypeVar("S", bound=Section)


def distributions(space: SearchSpace, current: Section) -> Space:
    """Optuna's distributions for what is searched, widened to hold the value in use.

    Raises `AnymodalError` where a range cannot hold it, as a logarithmic one cannot hold 0.
    """
    found: Space = {}
    for name, dimension in space.dimensions.items():
        value = getattr(current, name)
        if not isinstance(dimension, Range):
            choices = tuple(dict.fromkeys((*dimension, value)))
            found[name] = CategoricalDistribution(choices)
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or (dimension.log and value <= 0):
            raise AnymodalError(
                f"no {'logarithmic ' if dimension.log else ''}range holds the value in use of "
                f"{name}, {value!r}: give tune's {name} as a list of values that has it"
            )
        low, high = min(dimension.low, value), max(dimension.high, value)
        if isinstance(value, int):
            found[name] = IntDistribution(int(low), int(high), log=dimension.log)
        else:
            found[name] = FloatDistribution(float(low), float(high), log=dimension.log)
    return found


def suggest(trial: Trial, space: Space, relevant: Relevant) -> dict[str, Any]:
    """The trial's values of the parameters that matter."""
    chosen: dict[str, Any] = {}
    for name, found in space.items():
        if not relevant(name, chosen):
            continue
        if isinstance(found, CategoricalDistribution):
            chosen[name] = trial.suggest_categorical(name, found.choices)
        elif isinstance(found, IntDistribution):
            chosen[name] = trial.suggest_int(name, found.low, found.high, log=found.log)
        else:
            assert isinstance(found, FloatDistribution)
            chosen[name] = trial.suggest_float(name, found.low, found.high, log=found.log)
    return chosen


def settings(chosen: Mapping[str, Any], current: S) -> S:
    """The parameters in use with a trial's values, which are rounded to `DIGITS`."""
    changed: dict[str, Any] = {}
    for name, value in chosen.items():
        own = getattr(current, name)
        if isinstance(value, float) and not (isinstance(own, float) and math.isclose(value, own)):
            value = float(f"{value:.{DIGITS}g}")
        changed[name] = own if value == own and type(value) is type(own) else value
    return type(current).model_validate(current.model_dump() | changed)


def in_use(space: Space, current: Section, relevant: Relevant) -> dict[str, Any]:
    """The values in use of the parameters that matter: the first trial."""
    chosen: dict[str, Any] = {}
    for name in space:
        if relevant(name, chosen):
            chosen[name] = getattr(current, name)
    return chosen


def axis_ends(space: Space) -> dict[str, tuple[str, str]]:
    """What stands at the lower and the upper end of each parameter's axis."""
    ends = {}
    for name, found in space.items():
        if isinstance(found, CategoricalDistribution):
            low, high = found.choices[0], found.choices[-1]
        else:
            assert isinstance(found, (IntDistribution, FloatDistribution))
            low, high = found.low, found.high
        ends[name] = tuple("none" if end is None else str(end) for end in (low, high))
    return ends  # type: ignore[return-value]


def axis_place(found: BaseDistribution, value: Any) -> float:
    """Where a value lies on its parameter's axis, 0 to 1."""
    if isinstance(found, CategoricalDistribution):
        return found.choices.index(value) / max(1, len(found.choices) - 1)
    assert isinstance(found, (IntDistribution, FloatDistribution))
    low, high = float(found.low), float(found.high)
    if found.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5
