"""Condensed tables that figures and sentences share.

Predictions are long tables with columns system, regime, target, seed, truth and predicted; one row
a test clip and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score

from anymodal.dataset.clips import SPLITS, SUBSETS

NO_CLASS = "several or none"
"""Name of the rows that belong to no single class."""


def answers(predictions: pd.DataFrame, system: str, regime: str, target: str) -> pd.DataFrame:
    """The rows of one system, regime and target modality."""
    chosen = (
        (predictions["system"] == system)
        & (predictions["regime"] == regime)
        & (predictions["target"] == target)
    )
    return predictions[chosen]


def confusion_counts(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Test rows of each true class (index) by predicted class (columns), summed over seeds.

    Classes that `classes` does not name but the rows do are appended, so that no answer is lost.
    """
    known = _all_classes(rows, classes)
    if rows.empty:
        return pd.DataFrame(0, index=known, columns=known)
    counts = confusion_matrix(rows["truth"], rows["predicted"], labels=known)
    return pd.DataFrame(counts, index=known, columns=known)


def class_f1(rows: pd.DataFrame, classes: Sequence[str]) -> pd.Series:
    """F1 of each class in [0, 1], mean over seeds; NaN for a class that no row has or names."""
    known = _all_classes(rows, classes)
    scores = [
        f1_score(
            one["truth"], one["predicted"], labels=known, average=None, zero_division=float("nan")
        )
        for _, one in rows.groupby("seed")
    ]
    mean = np.mean(scores, axis=0) if scores else np.full(len(known), np.nan)
    return pd.Series(mean, index=known, dtype=float)


def accuracy(rows: pd.DataFrame) -> float:
    """Share of right answers over all seeds; NaN without rows."""
    return float((rows["truth"] == rows["predicted"]).mean()) if len(rows) else float("nan")


def confusions(counts: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    """Mistakes as (truth, predicted, rows, rows of that truth), most frequent share first."""
    matrix = counts.to_numpy(dtype=int)
    names = [str(name) for name in counts.index]
    totals = matrix.sum(axis=1)
    found = [
        (names[truth], names[said], int(matrix[truth, said]), int(totals[truth]))
        for truth, said in zip(*np.nonzero(matrix), strict=True)
        if truth != said
    ]
    return sorted(found, key=lambda entry: (-entry[2] / entry[3], entry[0], entry[1]))


def drawn_counts(account: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows taken of each instrument (index) by modality, subset and split (column levels).

    Rows that were left unused and columns that are zero throughout are dropped; subsets and splits
    stand in the order in which the pipeline uses them. Empty for an account that is not understood.
    """
    table = pd.DataFrame(list(account))
    if not {"instrument", "modality", "subset", "split", "taken"} <= set(table.columns):
        return pd.DataFrame()
    table = table[table["subset"].isin(SUBSETS) & table["split"].isin(SPLITS)]
    if table.empty:
        return pd.DataFrame()
    table = table.assign(instrument=table["instrument"].fillna(NO_CLASS).astype(str))
    counts = table.pivot_table(
        index="instrument",
        columns=["modality", "subset", "split"],
        values="taken",
        aggfunc="sum",
        fill_value=0,
    ).astype(int)
    order = sorted(
        (column for column in counts.columns if counts[column].any()),
        key=lambda column: (column[0], SUBSETS.index(column[1]), SPLITS.index(column[2])),
    )
    return counts[order]


def _all_classes(rows: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    there = {str(name) for column in ("truth", "predicted") for name in rows[column].unique()}
    return [*classes, *sorted(there - set(classes))]
