"""Expectations of class counts that Great Expectations does not bring along.

Each looks at the counts of a column's values (nulls left out) and fills in zero for every value
of `value_set` that is absent, so that a class that has vanished from a split is noticed. The
observed value is a mapping of `figure` to the number that is judged, `worst` to the class that
decides it, and `counts`. No rows at all fail.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from great_expectations.expectations.expectation import ColumnAggregateExpectation


class _ClassCounts(ColumnAggregateExpectation):
    value_set: list[str]
    limit: float

    metric_dependencies = ("column.value_counts",)
    domain_keys = ("batch_id", "column", "row_condition", "condition_parser")
    success_keys = ("value_set", "limit")

    def _judge(self, counts: pd.Series) -> tuple[float, str, bool]:
        raise NotImplementedError

    def _validate(
        self,
        metrics: dict[str, Any],
        runtime_configuration: Any = None,
        execution_engine: Any = None,
    ) -> dict[str, Any]:
        found = metrics["column.value_counts"]
        names = sorted({*map(str, found.index), *self.value_set})
        counts = pd.Series(0, index=names).add(found, fill_value=0).reindex(names).astype(int)
        if not counts.sum():
            observed: dict[str, Any] = {"figure": None, "worst": None, "counts": counts.to_dict()}
            return {"success": False, "result": {"observed_value": observed}}
        figure, worst, success = self._judge(counts)
        observed = {"figure": figure, "worst": worst, "counts": counts.to_dict()}
        return {"success": bool(success), "result": {"observed_value": observed}}


class ExpectClassBalance(_ClassCounts):
    """No class departs from the mean class size by more than `limit` of it."""

    def _judge(self, counts: pd.Series) -> tuple[float, str, bool]:
        departures = (counts / counts.mean() - 1).abs()
        return float(departures.max()), str(departures.idxmax()), departures.max() <= self.limit


class ExpectClassMinimum(_ClassCounts):
    """Every class has `limit` rows at least."""

    def _judge(self, counts: pd.Series) -> tuple[float, str, bool]:
        return float(counts.min()), str(counts.idxmin()), counts.min() >= self.limit


class ExpectClassSkew(_ClassCounts):
    """The largest class has at most `limit` times the rows of the smallest."""

    def _judge(self, counts: pd.Series) -> tuple[float, str, bool]:
        smallest = counts.min()
        ratio = float(counts.max() / smallest) if smallest else float("inf")
        return ratio, str(counts.idxmin()), ratio <= self.limit
