"""Rules evaluated by Great Expectations."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

# read when the package is imported: nothing is to be sent anywhere
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx

from anymodal.core.quiet import quiet
from anymodal.data.checks.report import CheckResult, Severity

_SHOWN = 20
"""Rows named at most for each rule."""


class Rule(NamedTuple):
    """An expectation, with the name that it is reported under and what it says in words."""

    name: str
    says: str
    expectation: Any
    severity: Severity = "error"


def validate(table: pd.DataFrame, rules: Sequence[Rule], keys: Sequence[str]) -> list[CheckResult]:
    """Evaluate the rules on the table; one that cannot be evaluated counts as failed.

    keys: the columns that name a row, the first of them in `CheckResult.unexpected`.
    """
    with quiet("great_expectations", logging.CRITICAL):
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
        suite = gx.ExpectationSuite("rules")
        for rule in rules:
            rule.expectation.meta = {"rule": rule.name}
            suite.add_expectation(rule.expectation)
        asset = context.data_sources.add_pandas("clips").add_dataframe_asset("clips")
        definition = gx.ValidationDefinition(
            name="clips",
            data=asset.add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(suite),
        )
        outcomes = definition.run(
            batch_parameters={"dataframe": table},
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": _SHOWN,
                "unexpected_index_column_names": [key for key in keys if key in table.columns],
            },
        )
    evaluated = outcomes.to_json_dict()["results"]
    by_name = {each["expectation_config"]["meta"]["rule"]: each for each in evaluated}
    return [_result(rule, by_name[rule.name], keys[0]) for rule in rules]


def _result(rule: Rule, outcome: dict[str, Any], key: str) -> CheckResult:
    result = outcome["result"]
    rows = (result.get("partial_unexpected_index_list") or [])[:_SHOWN]
    observed = result.get("observed_value")
    if observed is None and "unexpected_count" in result:
        observed = {"unexpected": result["unexpected_count"], "of": result.get("element_count")}
    failure = "" if outcome["success"] else f"; {_failure(outcome, rows, key)}"
    return CheckResult(
        name=rule.name,
        success=outcome["success"],
        severity=rule.severity,
        observed=observed,
        unexpected=tuple(str(row[key]) for row in rows),
        message=f"expected: {rule.says}{failure}" if failure else rule.says,
    )


def _failure(outcome: dict[str, Any], rows: list[dict[str, Any]], key: str) -> str:
    result = outcome["result"]
    if "unexpected_count" in result:
        named = ", ".join(_named(row, key) for row in rows[:3])
        return f"{result['unexpected_count']} row(s) differ: {named}{', …' * (len(rows) > 3)}"
    if result:
        return f"found {result.get('details', {}).get('mismatched') or result['observed_value']}"
    causes = [e["exception_message"] for e in outcome["exception_info"].values() if type(e) is dict]
    return f"it could not be evaluated ({' '.join(' '.join(causes).split())[:200]})"


def _named(row: dict[str, Any], key: str) -> str:
    """A row by its key, with its other values in parentheses."""
    facts = [
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value!r}"
        for name, value in row.items()
        if name != key
    ]
    return f"{row[key]}" + f" ({', '.join(facts)})" * bool(facts)
