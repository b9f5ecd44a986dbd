"""Names of metrics: `<what>/<of what>`, with one slash, by which MLflow groups its charts.

The names are the same on every run of a stage, whatever its encoders, so that runs compare column
by column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

HEADLINE = "summary/"
"""Prefix of metrics that the pipeline's parent run gets too; it is not part of their name."""


class LoggedMetrics(NamedTuple):
    """Parameters, which the pipeline's parent run gets too, and metrics."""

    params: dict[str, Any]
    metrics: dict[str, float]

    @property
    def headlines(self) -> dict[str, float]:
        """The parent's metrics, without the prefix."""
        return {
            name.removeprefix(HEADLINE): value
            for name, value in self.metrics.items()
            if name.startswith(HEADLINE)
        }


def metric_name(what: str, *of: str) -> str:
    """`<what>/<of>-<of>`."""
    return f"{what}/{'-'.join(of)}"
