"""What the figures of mixing, of the joint space and of the labels say, in sentences.

As in `anymodal.report.wording`, each sentence is chosen by the numbers that it names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from anymodal.classification import SINGLE
from anymodal.report.names import REGIME_NAMES, THINGS
from anymodal.report.records import Comparison, CorrelationRow, Share, Spaces
from anymodal.report.wording import Scores, apart, listed, percent

LIKELY = 0.05
"""p-values up to here are called a difference that other recordings would likely show too."""


def mixing_reading(curve: pd.DataFrame, scores: Scores, target: str) -> list[str]:
    """What labelled rows of the target add to MMT and MMP."""
    things = THINGS[target]
    rows = curve[curve["target"] == target]
    if rows.empty:
        return [f"No curve was drawn for {things}."]
    means = _means(rows)
    sentences = []
    for system, points in means.items():
        none, every = min(points), max(points)
        first, last = apart(points[none], points[every])
        verb = "rises" if points[every] > points[none] else "goes"
        sentences.append(
            f"{system} {verb} from {first} with no labelled {things} to {last} with {every:,}."
        )
    single = scores.get((SINGLE[target], "all", target))  # type: ignore[index]
    if single is not None:
        for system, points in means.items():
            reached = [samples for samples, score in points.items() if score >= single.mean]
            if not reached:
                sentences.append(f"{system} does not reach {single.system} ({single.mean:.3f}).")
            elif reached[0] == 0:
                sentences.append(
                    f"{system} is level with {single.system} ({single.mean:.3f}) without any."
                )
            else:
                sentences.append(
                    f"{system} is level with {single.system} ({single.mean:.3f}) from "
                    f"{reached[0]:,} {things} on."
                )
    return sentences


def _means(rows: pd.DataFrame) -> dict[str, dict[int, float]]:
    """Mean score over draws by system and samples, fewest samples first."""
    means: dict[str, dict[int, float]] = {}
    for system in ("MMT", "MMP"):
        own = rows[rows["system"] == system].groupby("samples")["macro_f1"].mean()
        if len(own):
            means[system] = dict(zip(own.index.tolist(), own.tolist(), strict=True))
    return means


def share_reading(share: Share, target: str) -> str:
    """The headline: zero-shot as a share of the best system."""
    things = THINGS[target]
    if share.share is None:
        return f"No system names {things} at all, so no share can be told."
    ends = (
        f" (95\N{NO-BREAK SPACE}%: {percent(share.low)} to {percent(share.high)})"
        if share.low is not None and share.high is not None
        else ""
    )
    return (
        f"On {things} zero-shot reaches {percent(share.share)}{ends} of the best system that saw "
        f"labelled {things} ({share.best_system})."
    )


def comparison_words(one: Comparison) -> str:
    """One tested difference."""
    if one.p_holm <= LIKELY:
        verdict = "more" if one.difference > 0 else "less"
        return f"{verdict}, beyond what other recordings would change"
    return "not told apart by these test recordings"


def system_words(key: tuple[str, str]) -> str:
    """System and regime, as in the tables."""
    return f"{key[0]}, {REGIME_NAMES.get(key[1], key[1])}"


def structure_reading(spaces: Spaces) -> list[str]:
    """The numbers behind the two distance matrices."""
    reduced, trained = spaces.reduced, spaces.trained
    sentences = []
    ratios = [one.ratio for one in trained if one.ratio is not None]
    if reduced.ratio is not None and ratios:
        before, after = apart(reduced.ratio, float(np.mean(ratios)))
        sentences.append(
            "The sounds and the pictures of one class lie "
            f"{before} times as far apart as those of different classes after PCA, and {after} "
            "times after translation (1 would mean that a class is no nearer to its own)."
        )
    found = [one.accuracy for one in trained if one.accuracy is not None]
    if reduced.accuracy is not None and found and reduced.chance is not None:
        sentences.append(
            "Named by the nearest centre of the other modality, "
            f"{percent(reduced.accuracy)} of test rows are right after PCA and "
            f"{percent(float(np.mean(found)))} after translation "
            f"(chance {percent(reduced.chance)})."
        )
    return sentences or ["No class has test rows of both modalities, so nothing can be compared."]


def labels_reading(correlations: Sequence[CorrelationRow], classes: int) -> list[str]:
    """Whether classes that the translation saw rarely are the ones that suffer."""
    rows = [row for row in correlations if row.method == "spearman" and row.regime == "all"]
    if not rows:
        return []
    parts, sure = [], []
    for row in rows:
        names = f"F1 on {THINGS[row.target]} with the number of {THINGS[row.counts_of]}"
        if row.value is None:
            parts.append(f"{names} undefined ({row.reason})")
            continue
        parts.append(f"{names} {row.value:+.2f} (p {row.p_value:.2f})")
        if row.p_value is not None and row.p_value <= LIKELY:
            sure.append(row)
    signs = {np.sign(row.value or 0) for row in sure}
    if not sure:
        here = f"over these {classes} classes no rank correlation can be told from chance"
    elif signs == {1.0}:
        here = "here the ranks bear it out"
    elif signs == {-1.0}:
        here = "here the ranks say the opposite"
    else:
        here = "here the ranks say both, by modality"
    verdict = f"The paper reads from its figures that rare classes suffer; {here}"
    return [f"Rank correlation of a class’s {listed(parts)}.", f"{verdict}."]
