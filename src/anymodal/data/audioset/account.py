"""The account of a selection: what each class and subset wanted, found and got."""

from __future__ import annotations

import numpy as np
import pandas as pd

from anymodal.data.audioset.plan import ACCOUNT_COLUMNS, tidy_account
from anymodal.ontology.instruments import INSTRUMENTS

ORDER = ("classification", "retrieval", "translation")
"""Subsets in the order in which they are drawn."""

OTHER = len(INSTRUMENTS)
"""Number of what has none or several of the classes, whose numbers are 0 to 17."""


def make_account(
    instrument: np.ndarray,
    subset: np.ndarray,
    reserve: np.ndarray,
    available: dict[str, np.ndarray],
    wanted: dict[str, int],
    reserves: dict[str, int],
) -> pd.DataFrame:
    """The account, as told at `plan.Plan.account`.

    `instrument`, `subset` (place in `ORDER`, −1 for unused) and `reserve` (videos,) of all videos
    drawn from; `available`: instruments of the videos that were there at a subset's turn; `wanted`
    and `reserves`: videos a subset, or in classification a class.
    """
    lines = []
    for place, name in enumerate(ORDER):
        mine = subset == place
        there, taken, spare = (
            _per_class(each)
            for each in (
                available[name],
                instrument[mine & ~reserve],
                instrument[mine & reserve],
            )
        )
        classes = len(INSTRUMENTS) if name == "classification" else 1
        for row, label in enumerate((*INSTRUMENTS, "other", "all")):
            # only classification asks for something of each class
            share = {OTHER + 1: classes}.get(row, 1 if row < OTHER and classes > 1 else 0)
            lines.append(
                _line(
                    (name, label),
                    wanted[name] * share if share else None,
                    (int(there[row]), int(taken[row]), int(spare[row])),
                    reserves[name] * share,
                )
            )
    unused = _per_class(instrument[subset < 0])
    for row, label in enumerate((*INSTRUMENTS, "other", "all")):
        lines.append(["unused", label, None, int(unused[row]), int(unused[row]), 0, ""])
    return tidy_account(pd.DataFrame(lines, columns=list(ACCOUNT_COLUMNS)))


def _per_class(instrument: np.ndarray) -> np.ndarray:
    """Videos of each class, of none or several, and of all, int64 (20,)."""
    counts = np.bincount(instrument, minlength=OTHER + 1)
    return np.append(counts, counts.sum())


def _line(
    key: tuple[str, str], wanted: int | None, found: tuple[int, int, int], reserve_wanted: int
) -> list[object]:
    _, taken, spare = found
    notes = []
    if wanted is not None and taken < wanted:
        notes.append(f"{wanted - taken:,} short")
    if spare < reserve_wanted:
        notes.append(f"reserve {reserve_wanted - spare:,} short")
    return [*key, wanted, *found, "; ".join(notes)]
