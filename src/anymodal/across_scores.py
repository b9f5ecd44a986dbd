"""What the protocols of `anymodal.across` come to: scores, sources one by one, and differences.

Conventions: predictions have the columns protocol, system, regime, seed, clip_id, truth and
predicted, of one target modality; every protocol answers the same clips. Scores are macro F1 over
the classes tested, of the answers of all folds together. Intervals and tests resample groups: they
tell what other recordings of these sources would have given. Sources are too few to be resampled;
:func:`by_source` gives each one's accuracy instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from anymodal.across import PROTOCOLS, Protocol
from anymodal.classification import macro_f1
from anymodal.resampling import DEFAULT, Resampling
from anymodal.significance import adjusted, by_seed, ends, told
from anymodal.statistics import bootstrap_interval, macro_f1_score, paired_difference

COMPARED: tuple[tuple[Protocol, Protocol], ...] = (
    ("within", "across"),
    ("within", "matched"),
    ("matched", "across"),
)
"""All that is lost across sources, and its two parts: to fewer rows, and to other sources."""


def scores(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> list[dict[str, Any]]:
    """Mean, spread over seeds and 95 % interval over groups of every protocol, system, regime."""
    found = []
    for (protocol, system, regime), rows in _in_order(predictions):
        clips, truth, answers = by_seed(rows)
        each = pd.Series([macro_f1(truth, one, classes) for one in answers])
        interval = bootstrap_interval(
            macro_f1_score(truth, answers, classes), [groups[clip] for clip in clips], how
        )
        found.append(
            {
                "protocol": protocol,
                "system": system,
                "regime": regime,
                "mean": float(each.mean()),
                "std": float(each.std(ddof=1)) if len(each) > 1 else 0.0,
                "min": float(each.min()),
                "max": float(each.max()),
                "seeds": len(each),
                **ends(interval),
            }
        )
    return found


def by_source(predictions: pd.DataFrame, sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """Share of the answers that are right (mean over seeds) for the clips of each source, largest
    first; `sources` names each clip's."""
    rows = predictions.assign(
        source=predictions["clip_id"].map(sources),
        right=predictions["truth"] == predictions["predicted"],
    )
    found = []
    for source, own in rows.groupby("source", sort=True):
        clips = own.drop_duplicates("clip_id")
        found.append(
            {
                "source": str(source),
                "rows": len(clips),
                "classes": int(clips["truth"].nunique()),
                "accuracy": [
                    {
                        "protocol": protocol,
                        "system": system,
                        "regime": regime,
                        "value": float(one["right"].mean()),
                    }
                    for (protocol, system, regime), one in _in_order(own)
                ],
            }
        )
    return sorted(found, key=lambda one: (-one["rows"], one["source"]))


def differences(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    how: Resampling = DEFAULT,
) -> list[dict[str, Any]]:
    """For every system and regime the differences of `COMPARED`, on the same rows, with p-values
    adjusted over all of them (Holm)."""
    answered = {key: by_seed(rows) for key, rows in _in_order(predictions)}
    found: list[dict[str, Any]] = []
    for system, regime in dict.fromkeys((key[1], key[2]) for key in answered):
        for first, second in COMPARED:
            if (first, system, regime) not in answered or (second, system, regime) not in answered:
                continue
            clips, truth, answers = answered[first, system, regime]
            one = paired_difference(
                truth,
                answers,
                answered[second, system, regime][2],
                classes,
                [groups[clip] for clip in clips],
                how,
            )
            names = {"system": system, "regime": regime, "first": first, "second": second}
            found.append(names | told(one))
    return adjusted(found)


def _in_order(
    predictions: pd.DataFrame,
) -> list[tuple[tuple[Protocol, str, str], pd.DataFrame]]:
    """Predictions by protocol, system and regime; protocols as in `PROTOCOLS`."""
    parts = {
        (str(protocol), str(system), str(regime)): rows
        for (protocol, system, regime), rows in predictions.groupby(
            ["protocol", "system", "regime"], sort=True
        )
    }
    return [
        ((protocol, system, regime), parts[protocol, system, regime])
        for protocol in PROTOCOLS
        for name, system, regime in parts
        if name == protocol
    ]
