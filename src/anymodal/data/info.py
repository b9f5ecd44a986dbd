"""Facts about a dataset that results are printed with."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from anymodal.core.modality import Modality
from anymodal.core.record import Pairing, Record


class SkippedFile(Record):
    """A file that holds no usable media."""

    path: str
    reason: str


class DatasetInfo(Record):
    """What stage `dataset` found and drew."""

    name: str
    source: str
    pairing: Pairing
    classes: tuple[str, ...]
    left_out: dict[str, str] = Field(default_factory=dict)
    """Classes that take no part, and why."""
    rows: dict[Modality, int]
    groups: int
    skipped: tuple[SkippedFile, ...] = ()
    account: tuple[dict[str, Any], ...] = ()
    """One row per instrument, modality, subset and split (see `draw_subsets`)."""
