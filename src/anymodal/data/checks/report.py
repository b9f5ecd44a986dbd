"""Results of the checks, as checks.json and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader

from anymodal.core.errors import AnymodalError
from anymodal.core.record import Record
from anymodal.core.storage import write_text

Severity = Literal["error", "warning"]
"""`error`: nothing should be trained on data that fail the check."""


class CheckResult(Record):
    """Result of one check."""

    name: str
    success: bool
    severity: Severity
    observed: Any
    """What was measured: a number, a list or a mapping of plain values."""
    unexpected: tuple[str, ...]
    """The first clip ids, or classes, that fail it."""
    message: str


class CheckReport(Record):
    """Results of all checks: checks.json."""

    results: tuple[CheckResult, ...]
    counts: tuple[dict[str, str | int], ...] = ()
    """Rows of every class and modality in each part, as records."""

    @property
    def ok(self) -> bool:
        """Whether no check of severity `error` failed."""
        return not self.errors

    @property
    def errors(self) -> list[CheckResult]:
        """Failed checks of severity `error`."""
        return [r for r in self.results if not r.success and r.severity == "error"]

    @property
    def warnings(self) -> list[CheckResult]:
        """Failed checks of severity `warning`."""
        return [r for r in self.results if not r.success and r.severity == "warning"]

    def raise_if_failed(self) -> None:
        """Raise `AnymodalError` that names the first failed check and its rows."""
        if self.errors:
            first = self.errors[0]
            more = f" ({len(self.errors) - 1} more failed)" if len(self.errors) > 1 else ""
            raise AnymodalError(f"check {first.name} failed: {first.message}{more}")

    def write_page(self, path: Path) -> None:
        """Write a self-contained HTML page, failed checks first."""
        environment = Environment(
            loader=PackageLoader("anymodal.data.checks", "."),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        results = sorted(self.results, key=lambda result: (result.success, result.severity))
        template = environment.get_template("checks.html.j2")
        write_text(path, template.render(report=self, results=results))
