"""What the checks found, as values, as JSON and as a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from anymodal.errors import AnymodalError
from anymodal.storage import write_json, write_text


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one expectation."""

    name: str
    """Such as `groups_disjoint` or `balance:test:audio`."""
    success: bool
    severity: str
    """`error`: a failure means that nothing should be trained; `warning`: it is only told."""
    observed: Any
    """What the expectation measured: a number, a list or a mapping of plain values."""
    unexpected: tuple[str, ...]
    """clip_ids of rows that break it, the first few of them."""
    message: str
    """One line for people."""


@dataclass(frozen=True)
class CheckReport:
    """Outcome of all expectations."""

    results: tuple[CheckResult, ...]
    counts: tuple[dict[str, Any], ...] = ()
    """Rows of every class, modality and split, as records."""

    @property
    def ok(self) -> bool:
        """Whether no expectation of severity `error` failed."""
        return not self.errors

    @property
    def errors(self) -> tuple[CheckResult, ...]:
        """Failed expectations of severity `error`."""
        return tuple(each for each in self.results if not each.success and each.severity == "error")

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """Failed expectations of severity `warning`."""
        return tuple(
            each for each in self.results if not each.success and each.severity == "warning"
        )

    def raise_if_failed(self) -> None:
        """Raise `AnymodalError` whose one line names the first failed expectation and its rows."""
        if self.ok:
            return
        first = self.errors[0]
        more = f" ({len(self.errors) - 1} more failed)" if len(self.errors) > 1 else ""
        raise AnymodalError(f"check {first.name} failed: {first.message}{more}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "ok": self.ok,
            "expectations": len(self.results),
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "results": [asdict(each) for each in self.results],
            "counts": list(self.counts),
        }


def write_report(report: CheckReport, out_dir: Path) -> None:
    """Write checks.json and the self-contained checks.html."""
    write_json(out_dir / "checks.json", report.to_dict())
    environment = Environment(
        loader=PackageLoader("anymodal.checks", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("checks.html.j2")
    order = {False: 0, True: 1}
    results = sorted(report.results, key=lambda each: (order[each.success], each.severity))
    write_text(out_dir / "checks.html", page.render(report=report, results=results))
