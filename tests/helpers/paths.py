"""Where the checkout is, and the optional material beside it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
FIXTURES = TESTS / "fixtures"
SHARED = ROOT.parent / "shared"
"""Media and reference files that are no part of the project; often absent."""


def shared(pattern: str) -> list[Path]:
    """The files or folders of the optional material that match; without any, the test is
    skipped."""
    paths = sorted(SHARED.glob(pattern))
    if not paths:
        pytest.skip(f"no ../shared/{pattern}")
    return paths
