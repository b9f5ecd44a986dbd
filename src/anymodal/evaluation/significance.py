"""Intervals, tests and the headline share of a table of predictions.

A table of predictions has the columns system, regime, target, seed, clip_id, truth and predicted,
one row per test clip and seed. `groups` maps a test clip to its recording: resamples take whole
recordings. Scores are macro F1, mean over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anymodal.core.modality import MODALITIES, Modality
from anymodal.evaluation.classification import (
    SINGLE,
    Comparison,
    ScoreInterval,
    SystemKey,
    ZeroShotShare,
)
from anymodal.evaluation.resampling import DEFAULT, Interval, Resampling
from anymodal.evaluation.statistics import (
    bootstrap_interval,
    holm,
    macro_f1_score,
    paired_difference,
    zero_shot_ratio,
)


class Answered(NamedTuple):
    """One system's answers, clips in the order of their ids."""

    clip_ids: np.ndarray
    """str (clips,)."""
    truth: np.ndarray
    """str (clips,)."""
    predicted: np.ndarray
    """str (seeds, clips)."""

    def groups(self, of_clip: Mapping[str, str]) -> list[str]:
        """The recording of each clip."""
        return [of_clip[clip_id] for clip_id in self.clip_ids]


def intervals(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> tuple[ScoreInterval, ...]:
    """Score and 95 % interval of every system, regime and target."""
    rows = []
    for (target, system, regime), own in parts(predictions, "target", "system", "regime").items():
        answered = by_seed(own)
        recordings = answered.groups(groups)
        score = macro_f1_score(answered.truth, answered.predicted, classes)
        low, high = ends(bootstrap_interval(score, recordings, how))
        rows.append(
            ScoreInterval(
                system=system,
                regime=regime,
                target=target,
                macro_f1=score.value,
                low=low,
                high=high,
                groups=len(set(recordings)),
            )
        )
    return tuple(rows)


def comparisons(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> tuple[Comparison, ...]:
    """The paper's comparisons for each target, p-values adjusted over all of them (Holm).

    MMT with MMP zero-shot, MMT zero-shot with the single-modality system and with MMT on all data,
    and MMT with MMP and with the single-modality system on all data.
    """
    tests = []
    for target in MODALITIES:
        table = _by_system(predictions, target)
        single: SystemKey = (SINGLE[target], "all")
        wanted: list[tuple[SystemKey, SystemKey]] = [
            (("MMT", "zero-shot"), ("MMP", "zero-shot")),
            (("MMT", "zero-shot"), single),
            (("MMT", "zero-shot"), ("MMT", "all")),
            (("MMT", "all"), ("MMP", "all")),
            (("MMT", "all"), single),
        ]
        for first, second in wanted:
            if first not in table or second not in table:
                continue
            answered = table[first]
            difference = paired_difference(
                answered.truth,
                answered.predicted,
                table[second].predicted,
                classes,
                answered.groups(groups),
                how,
            )
            tests.append((target, first, second, difference))
    adjusted = holm([difference.p_value for *_, difference in tests])
    return tuple(
        Comparison(
            target=target,
            first=first,
            second=second,
            difference=difference.value,
            low=ends(difference.interval)[0],
            high=ends(difference.interval)[1],
            p_value=difference.p_value,
            p_holm=p_holm,
        )
        for (target, first, second, difference), p_holm in zip(
            tests, adjusted.tolist(), strict=True
        )
    )


def zero_shot_shares(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> dict[Modality, ZeroShotShare]:
    """By target: MMT zero-shot as a share of the best system that saw labels of the target."""
    shares = {}
    for target in MODALITIES:
        table = _by_system(predictions, target)
        zero_shot = table.get(("MMT", "zero-shot"))
        others: dict[str, np.ndarray] = {
            key[0]: each.predicted for key, each in table.items() if key[1] == "all"
        }
        if zero_shot is None or not others:
            continue
        share = zero_shot_ratio(
            zero_shot.truth, zero_shot.predicted, others, classes, zero_shot.groups(groups), how
        )
        low, high = ends(share.interval)
        measured = {"zero_shot": share.zero_shot, "best": share.best}
        shares[target] = ZeroShotShare.model_validate(
            {"share": share.value, "low": low, "high": high, "best_system": share.best_system}
            | measured
        )
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


def ends(interval: Interval | None) -> tuple[float | None, float | None]:
    """Both ends of an interval, None where it is undefined."""
    return (None, None) if interval is None else (interval.low, interval.high)


def _by_system(predictions: pd.DataFrame, target: Modality) -> dict[SystemKey, Answered]:
    rows = predictions[predictions["target"] == target]
    return {key: by_seed(own) for key, own in parts(rows, "system", "regime").items()}
