"""Great Expectations' Data Docs as one page that needs nothing from the network.

The package renders a validation as a page that takes its styles and scripts from a dozen addresses,
and tells when it was made. Here its sections are kept as they are, the rest is ours: one small
stylesheet in the page, no script, no time, no id of a run. The same results give the same bytes.
"""

from __future__ import annotations

import copy
import html
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
)
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

from anymodal.checks.engine import Validation, quiet
from anymodal.storage import write_text

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TITLE = "Data Docs of the clips"


def write_data_docs(validations: Sequence[Validation], folder: Path) -> None:
    """Write index.html, a page on all the validations together."""
    write_text(folder / "index.html", render([each.outcome for each in validations]))


def render(outcomes: Sequence[Any]) -> str:
    """The page on some ExpectationSuiteValidationResults."""
    with quiet():
        document = ValidationResultsPageRenderer().render(_merged(outcomes))
    for section in document.sections:
        # what can be unfolded there is the time and the machine, or needs a script to be unfolded
        section.content_blocks = [
            block for block in section.content_blocks if block.content_block_type != "collapse"
        ]
    page = DefaultJinjaPageView().render(document)
    contents = _between(page, '<nav id="navigation"', "</nav>") + "</nav>"
    sections = _between(page, '<div id="section-1"', "<footer>")
    # the two grid columns around the sections and the container end after the last of them
    sections = re.sub(r"(\s*</div>){3}\s*$", "", sections)
    style = resources.files("anymodal.checks").joinpath("datadocs.css").read_text("utf-8")
    content = _plain(f"<main>\n{contents}\n<div>\n{sections}\n</div>\n</main>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(_TITLE)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(_TITLE)}</h1>\n{content}\n</body>\n</html>\n"
    )


def _merged(outcomes: Sequence[Any]) -> ExpectationSuiteValidationResult:
    """All results as those of one validation, which happened at no particular time."""
    results = [_safe(each) for outcome in outcomes for each in outcome.results]
    passed = sum(bool(each.success) for each in results)
    return ExpectationSuiteValidationResult(
        success=passed == len(results),
        results=results,
        suite_name="clips",
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(results) - passed,
            "success_percent": 100 * passed / len(results) if results else None,
        },
        meta={
            "great_expectations_version": "",
            "run_id": RunIdentifier(run_name="checks", run_time=datetime(2000, 1, 1, tzinfo=UTC)),
            "validation_time": datetime(2000, 1, 1, tzinfo=UTC),
            "batch_markers": {},
        },
    )


def _safe(result: Any) -> Any:
    """A copy whose values are text, for the package puts them into its pages as they are."""
    result = copy.deepcopy(result)
    found = result.result
    if found.get("unexpected_count") and "unexpected_percent" not in found:
        # counts that are not of rows: the package's page would miss the share that it has not
        del found["unexpected_count"]
    result.result = _escaped(found)
    if result.expectation_config:
        result.expectation_config.kwargs = _escaped(result.expectation_config.kwargs)
    return result


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, dict):
        return {_escaped(key): _escaped(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_escaped(each) for each in value]
    return value


def _plain(text: str) -> str:
    """Without scripts, links that lead out of the page, inline styles and chance ids."""
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    text = re.sub(r'<a\s[^>]*href="(?!#)[^"]*"[^>]*>(.*?)</a>', r"\1", text, flags=re.DOTALL)
    text = re.sub(r'\sstyle="[^"]*"', "", text)
    text = text.replace("Data asset: None<br>", "")
    ids: dict[str, str] = {}
    text = _UUID.sub(lambda found: ids.setdefault(found[0], f"id-{len(ids)}"), text)
    return re.sub(r"\n\s*\n+", "\n", text)


def _between(page: str, first: str, last: str) -> str:
    """From `first`, which stays, to `last`, which does not."""
    start = page.index(first)
    return page[start : page.index(last, start)]
