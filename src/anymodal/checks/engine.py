"""Great Expectations at work: rules in, results out."""

from __future__ import annotations

import logging
import math
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pandas as pd

# read when the package is imported: nothing is to be sent anywhere
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx

from anymodal.checks.report import CheckResult
from anymodal.silence import silenced

SHOWN = 20
"""Rows named at most for each expectation."""


@dataclass(frozen=True)
class Rule:
    """An expectation with the name that it is reported under and what it says in words."""

    name: str
    expectation: Any
    says: str
    severity: str = "error"


@dataclass(frozen=True)
class Validation:
    """What came of some rules."""

    results: list[CheckResult]
    """In the order of the rules; one that could not be evaluated counts as failed."""
    outcome: Any
    """Great Expectations' own ExpectationSuiteValidationResult."""


def validate(table: pd.DataFrame, rules: list[Rule]) -> Validation:
    """Evaluate the rules on the table."""
    named = {"unexpected_index_column_names": ["clip_id"]} if "clip_id" in table.columns else {}
    with quiet():
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
        suite = gx.ExpectationSuite("clips")
        for rule in rules:
            rule.expectation.meta = {"rule": rule.name}
            suite.add_expectation(rule.expectation)
        asset = context.data_sources.add_pandas("clips").add_dataframe_asset("clips")
        definition = gx.ValidationDefinition(
            name="clips",
            data=asset.add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(suite),
        )
        outcome = definition.run(
            batch_parameters={"dataframe": table},
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": SHOWN,
                **named,
            },
        )
    by_name: dict[str, Any] = {}
    for each in outcome.results:
        meta = each.expectation_config.meta if each.expectation_config else None
        by_name[str((meta or {}).get("rule"))] = each
    return Validation([_result(rule, by_name[rule.name]) for rule in rules], outcome)


def quiet() -> AbstractContextManager[None]:
    """Keep Great Expectations' own words from the error output."""
    return silenced("great_expectations", logging.CRITICAL)


def _result(rule: Rule, outcome: Any) -> CheckResult:
    found = outcome.result or {}
    rows = found.get("partial_unexpected_index_list") or []
    clips = tuple(str(row.get("clip_id")) for row in rows if isinstance(row, dict))[:SHOWN]
    observed: Any = found.get("observed_value")
    if observed is None and "unexpected_count" in found:
        observed = {"unexpected": int(found["unexpected_count"]), "of": found.get("element_count")}
    success = bool(outcome.success)
    message = rule.says if success else f"expected: {rule.says}; {_failure(found, clips, outcome)}"
    return CheckResult(rule.name, success, rule.severity, _plain(observed), clips, message)


def _failure(found: dict[str, Any], clips: tuple[str, ...], outcome: Any) -> str:
    observed = found.get("observed_value")
    if "unexpected_count" in found:
        values = found.get("partial_unexpected_list") or []
        # a number is a count of ours, and no value that someone could look for in the table
        distinct = list(dict.fromkeys(each for each in values if isinstance(each, str)))[:3]
        told = f", with {', '.join(map(repr, distinct))}" if distinct else ""
        which = f" (clip {', '.join(clips[:3])}{', …' if len(clips) > 3 else ''})" if clips else ""
        return f"{found['unexpected_count']} row(s) differ{told}{which}"
    if isinstance(observed, dict) and "figure" in observed:
        if observed["figure"] is None:
            return "there are no rows"
        rows = observed["counts"].get(observed["worst"])
        return f"found {observed['figure']:.3g} ({observed['worst']!r} with {rows} row(s))"
    mismatched = (found.get("details") or {}).get("mismatched")
    if mismatched:
        parts = [f"{how}: {', '.join(map(str, names))}" for how, names in mismatched.items()]
        return "; ".join(parts)
    if observed is not None:
        return f"found {_plain(observed)}"
    trouble = next(iter((outcome.exception_info or {}).values()), None)
    reason = trouble.get("exception_message") if isinstance(trouble, dict) else trouble
    return f"it could not be evaluated ({' '.join(str(reason).split())[:200]})"


def _plain(value: Any) -> Any:
    """Values that JSON has; what it has not (infinity, other objects) as text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)
