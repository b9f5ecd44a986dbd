"""Where the checkout is, and the optional material beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
FIXTURES = TESTS / "fixtures"
SHARED = ROOT.parent / "shared"
"""Photographs, recordings and videos that are no part of the project; often absent."""
