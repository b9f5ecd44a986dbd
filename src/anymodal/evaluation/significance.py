"""Intervals, tests and the headline share of a table of predictions.

A table of predictions has the columns system, regime, target, seed, clip_id, truth and predicted,
one row per test clip and seed. `groups` maps a test clip to its recording: resamples take whole
recordings. Scores are macro F1, mean over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from anymodal.core.modality import MODALITIES, Modality
from anymodal.evaluation.classification import SINGLE, Comparison, ScoreInterval, SystemKey
from anymodal.evaluation.resampling import DEFAULT, Interval, Resampling
from anymodal.evaluation.statistics import (
    Difference,
    ZeroShotShare,
    bootstrap_interval,
    holm,
    macro_f1_score,
    paired_difference,
    zero_shot_ratio,
)

Groups = Mapping[str, str]
K = TypeVar("K")


class Answered(NamedTuple):
    """One system's answers, clips in the order of their ids."""

    clip_ids: np.ndarray
    """str (clips,)."""
    truth: np.ndarray
    """str (clips,)."""
    predicted: np.ndarray
    """str (seeds, clips)."""

    def groups(self, of_clip: Groups) -> list[str]:
        """The recording of each clip."""
        return [of_clip[clip_id] for clip_id in self.clip_ids]

    def interval(self, classes: Sequence[str], groups: Groups, how: Resampling) -> Interval | None:
        """Interval of the score over recordings."""
        score = macro_f1_score(self.truth, self.predicted, classes)
        return bootstrap_interval(score, self.groups(groups), how)


def intervals(
    predictions: pd.DataFrame, classes: Sequence[str], groups: Groups, how: Resampling = DEFAULT
) -> tuple[ScoreInterval, ...]:
    """Score and 95 % interval of every system, regime and target."""
    rows = []
    for (target, system, regime), own in parts(predictions, "target", "system", "regime").items():
        answered = by_seed(own)
        low, high = answered.interval(classes, groups, how) or (None, None)
        rows.append(
            ScoreInterval(
                system=system,
                regime=regime,
                target=target,
                macro_f1=macro_f1_score(answered.truth, answered.predicted, classes).value,
                low=low,
                high=high,
                groups=len(set(answered.groups(groups))),
            )
        )
    return tuple(rows)


def comparisons(
    predictions: pd.DataFrame, classes: Sequence[str], groups: Groups, how: Resampling = DEFAULT
) -> tuple[Comparison, ...]:
    """The paper's comparisons for each target, p-values adjusted over all of them (Holm).

    MMT with MMP zero-shot, MMT zero-shot with the single-modality system and with MMT on all data,
    and MMT with MMP and with the single-modality system on all data.
    """
    zero_shot, trained = ("MMT", "zero-shot"), ("MMT", "all")
    pairs = [
        ((target, *first), (target, *second))
        for target in MODALITIES
        for first, second in (
            (zero_shot, ("MMP", "zero-shot")),
            (zero_shot, (SINGLE[target], "all")),
            (zero_shot, trained),
            (trained, ("MMP", "all")),
            (trained, (SINGLE[target], "all")),
        )
    ]
    table = {
        key: by_seed(own) for key, own in parts(predictions, "target", "system", "regime").items()
    }
    tests = list(tested(table, pairs, classes, groups, how))
    return tuple(
        Comparison(target=first[0], first=first[1:], second=second[1:], **vars(test), p_holm=p_holm)
        for (first, second, test), p_holm in zip(tests, adjusted(tests), strict=True)
    )


def tested(
    table: Mapping[K, Answered],
    pairs: Iterable[tuple[K, K]],
    classes: Sequence[str],
    groups: Groups,
    how: Resampling,
) -> Iterator[tuple[K, K, Difference]]:
    """The difference of each of the `pairs` that `table` has."""
    for first, second in pairs:
        if first in table and second in table:
            own, other = table[first], table[second].predicted
            recordings = own.groups(groups)
            yield (
                first,
                second,
                paired_difference(own.truth, own.predicted, other, classes, recordings, how),
            )


def adjusted(tests: Sequence[tuple[Any, Any, Difference]]) -> list[float]:
    """The p-values of `tests`, adjusted over all of them (Holm)."""
    return holm([test.p_value for *_, test in tests]).tolist()


def zero_shot_shares(
    predictions: pd.DataFrame, classes: Sequence[str], groups: Groups, how: Resampling = DEFAULT
) -> dict[Modality, ZeroShotShare]:
    """By target: MMT zero-shot as a share of the best system that saw labels of the target."""
    shares = {}
    for target in MODALITIES:
        own = predictions[predictions["target"] == target]
        table: dict[SystemKey, Answered] = {
            key: by_seed(rows) for key, rows in parts(own, "system", "regime").items()
        }
        zero_shot = table.get(("MMT", "zero-shot"))
        others = {key[0]: each.predicted for key, each in table.items() if key[1] == "all"}
        if zero_shot is not None and others:
            _, truth, predicted = zero_shot
            recordings = zero_shot.groups(groups)
            shares[target] = zero_shot_ratio(truth, predicted, others, classes, recordings, how)
    return shares


def by_seed(rows: pd.DataFrame) -> Answered:
    """One system's predictions for one target as arrays."""
    table = rows.pivot(index="clip_id", columns="seed", values="predicted")
    truth = rows.drop_duplicates("clip_id").set_index("clip_id")["truth"].loc[table.index]
    return Answered(
        table.index.to_numpy(dtype=str), truth.to_numpy(dtype=str), table.to_numpy(dtype=str).T
    )


def parts(table: pd.DataFrame, *columns: str) -> dict[Any, pd.DataFrame]:
    """The rows of each combination of values that the columns have, in their order."""
    return dict(iter(table.groupby(list(columns), sort=True)))
