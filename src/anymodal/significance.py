"""How far results can be trusted: intervals, tests and the headline, of a table of predictions.

Goal: to print no score without what other test recordings would have done to it.

Conventions: a table of predictions has the columns system, regime, target, seed, clip_id, truth and
predicted, one row a test clip and seed. `groups` names each clip's recording: resamples take whole
recordings. Scores are macro F1, mean over seeds. How resamples are drawn: `anymodal.resampling`.

* :func:`intervals`: 95 % intervals of every system
* :func:`comparisons`: the differences that the paper speaks of, tested in pairs
* :func:`zero_shot_shares`: zero-shot as a share of the best system (section 4.2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anymodal.classification import SINGLE
from anymodal.encoders.base import MODALITIES
from anymodal.resampling import DEFAULT, Interval, Resampling
from anymodal.statistics import (
    Difference,
    bootstrap_interval,
    holm,
    macro_f1_score,
    paired_difference,
    zero_shot_ratio,
)

Key = tuple[str, str]
"""System and regime."""


def intervals(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> list[dict[str, Any]]:
    """Score and interval of every system, regime and target; None where undefined."""
    found = []
    for (target, system, regime), rows in predictions.groupby(
        ["target", "system", "regime"], sort=True
    ):
        clips, truth, answers = by_seed(rows)
        of_clip = [groups[clip] for clip in clips]
        score = macro_f1_score(truth, answers, classes)
        found.append(
            {
                "system": system,
                "regime": regime,
                "target": target,
                "macro_f1": score.value,
                **ends(bootstrap_interval(score, of_clip, how)),
                "groups": len(set(of_clip)),
            }
        )
    return found


def comparisons(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> list[dict[str, Any]]:
    """The paper's comparisons for each target, with p-values adjusted over all that were made
    (Holm): MMT with MMP zero-shot, MMT zero-shot with the single-modality system and with MMT on
    all data, and MMT with MMP and with the single-modality system on all data.
    """
    found: list[dict[str, Any]] = []
    for target in MODALITIES:
        table = _by_system(predictions, target)
        single = (SINGLE[target], "all")
        wanted: list[tuple[Key, Key]] = [
            (("MMT", "zero-shot"), ("MMP", "zero-shot")),
            (("MMT", "zero-shot"), single),
            (("MMT", "zero-shot"), ("MMT", "all")),
            (("MMT", "all"), ("MMP", "all")),
            (("MMT", "all"), single),
        ]
        for first, second in wanted:
            if first not in table or second not in table:
                continue
            clips, truth, answers = table[first]
            difference = paired_difference(
                truth, answers, table[second][2], classes, [groups[clip] for clip in clips], how
            )
            names = {"target": target, "first": list(first), "second": list(second)}
            found.append(names | told(difference))
    return adjusted(found)


def zero_shot_shares(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> dict[str, dict[str, Any]]:
    """By target: MMT zero-shot as a share of the best system that saw labels of the target."""
    found = {}
    for target in MODALITIES:
        table = _by_system(predictions, target)
        zero = table.get(("MMT", "zero-shot"))
        others = {key[0]: one[2] for key, one in table.items() if key[1] == "all"}
        if zero is None or not others:
            continue
        clips, truth, answers = zero
        share = zero_shot_ratio(
            truth, answers, others, classes, [groups[clip] for clip in clips], how
        )
        found[str(target)] = {
            "share": share.value,
            **ends(share.interval),
            "zero_shot": share.zero_shot,
            "best": share.best,
            "best_system": share.best_system,
        }
    return found


def told(difference: Difference) -> dict[str, float | None]:
    """A tested difference as plain numbers."""
    return {
        "difference": difference.value,
        **ends(difference.interval),
        "p_value": difference.p_value,
    }


def adjusted(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with `p_holm`: `p_value` adjusted over all of them."""
    p_values = holm([one["p_value"] for one in found]).tolist()
    return [one | {"p_holm": p} for one, p in zip(found, p_values, strict=True)]


def by_seed(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clip ids (clips,), truth (clips,) and answers (seeds, clips) of one system's predictions;
    clips in the order of their ids."""
    table = rows.pivot(index="clip_id", columns="seed", values="predicted")
    truth = rows.drop_duplicates("clip_id").set_index("clip_id")["truth"].loc[table.index]
    return table.index.to_numpy(dtype=str), truth.to_numpy(dtype=str), table.to_numpy(dtype=str).T


def _by_system(
    predictions: pd.DataFrame, target: str
) -> dict[Key, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rows = predictions[predictions["target"] == target]
    return {
        (str(system), str(regime)): by_seed(one)
        for (system, regime), one in rows.groupby(["system", "regime"], sort=True)
    }


def ends(interval: Interval | None) -> dict[str, float | None]:
    """Both ends of an interval, None where it is undefined."""
    return {
        "low": None if interval is None else float(interval.low),
        "high": None if interval is None else float(interval.high),
    }
