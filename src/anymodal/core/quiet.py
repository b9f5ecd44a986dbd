"""Keeping other packages' remarks from the error output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silenced(logger: str, below: int) -> Iterator[None]:
    """Without warnings, and without what `logger` says below a level of `logging`."""
    chosen = logging.getLogger(logger)
    level = chosen.level
    chosen.setLevel(below)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chosen.setLevel(level)
