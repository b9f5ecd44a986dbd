"""Numbers into sentences that hold whatever the numbers say.

Every sentence is chosen by comparing the numbers it names: better, worse, within the spread of
the seeds, or not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anymodal.classification import SINGLE
from anymodal.report.names import THINGS
from anymodal.report.records import SummaryRow

Scores = Mapping[tuple[str, str, str], SummaryRow]
"""Summary rows by (system, regime, target)."""

_NBSP = "\N{NO-BREAK SPACE}"

THING = {"audio": "a sound", "image": "a picture"}
OTHER = {"audio": "image", "image": "audio"}


def scores_of(rows: Sequence[SummaryRow]) -> Scores:
    """Summary rows by system, regime and target."""
    return {(row.system, row.regime, row.target): row for row in rows}


def apart(*values: float, least: int = 2, most: int = 4) -> list[str]:
    """Values with as few decimals as tell the different ones apart, all with the same number."""
    texts: list[str] = []
    for decimals in range(least, most + 1):
        texts = [f"{value:.{decimals}f}" for value in values]
        if len(set(texts)) == len({round(value, most) for value in values}):
            break
    return texts


def percent(share: float, decimals: int = 0) -> str:
    """A share as per cent."""
    return f"{100 * share:.{decimals}f}{_NBSP}%"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = words or [""]
    return f"{', '.join(head)} and {last}" if head else last


def plural(count: int, word: str, many: str | None = None) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def pair_words(pair: str) -> str:
    """A pair's name with room around the plus."""
    return pair.replace("+", " + ")


def spread_words(count: int) -> str:
    """How the spread that is shown came about."""
    if count == 1:
        return "one seed, so no spread is known"
    return f"mean ± standard deviation over {count} seeds"


def beside_chance(row: SummaryRow) -> str:
    """How a score stands to chance, over the seeds."""
    if row.mean <= row.chance:
        return "no better than chance"
    if row.min <= row.chance:
        return "above chance on average but not with every seed"
    return "above chance with every seed" if row.seeds > 1 else "above chance"


def headline(scores: Scores, target: str) -> str:
    """Answer to the question for one target modality."""
    other, things = THINGS[OTHER[target]], THINGS[target]
    zero = scores.get(("MMT", "zero-shot", target))
    if zero is None:
        return f"The translated classifier was not tested zero-shot on {things}."
    start = (
        f"Trained on {zero.train_rows:,} {other} alone, the translated classifier names the "
        f"instrument in {THING[target]}"
    )
    system = SINGLE[target]  # type: ignore[index]
    single = scores.get((system, "all", target))
    numbers = apart(zero.mean, zero.chance, *([single.mean] if single else []))
    beside = f"macro F1 {numbers[0]} (chance {numbers[1]})"
    reference = f"the classifier trained on {single.train_rows:,} {things}" if single else ""
    if zero.mean <= zero.chance:
        tail = f"; {reference} reaches {numbers[2]}" if single else ""
        return f"{start} no better than chance: {beside}{tail}."
    doubt = "" if zero.min > zero.chance else ", above chance on average but not with every seed"
    sentence = f"{start} with {beside}{doubt}"
    if single is None or single.mean <= 0:
        return f"{sentence}."
    share = percent(zero.mean / single.mean)
    return f"{sentence}: {share} of what {reference} reaches ({numbers[2]})."


def pairing_words(pairing: str) -> str:
    """What the pairing means for the reader."""
    if pairing == "clip":
        return (
            "Each sound and its picture are the same moment of one recording. The translation "
            "learned from what belongs together, without any label. Zero-shot means that the "
            "classifier saw no labelled row of the modality it is tested on."
        )
    return (
        "A sound and a picture belong together only by their label; nothing was filmed together. "
        "The translation has therefore seen the labels of its own training subset, so this is not "
        "the paper’s label-free setting. Zero-shot here means that the classifier saw no labelled "
        "row of the modality it is tested on."
    )


def pairing_limit(pairing: str) -> str:
    """What the pairing keeps from being concluded."""
    if pairing == "clip":
        return (
            "What is seen while it sounds need not make the sound: a clip’s label was given for "
            "what is heard, and its picture may show something else."
        )
    return (
        "Class pairing makes the task easier than the paper’s: the translation itself learns to "
        "sort both modalities by class, from labelled sounds and pictures other than those of the "
        "classifiers, often many more. That is also why MMT may score above a classifier that was "
        f"trained on the target modality itself, and why a share above 100{_NBSP}% is possible."
    )


def scores_reading(scores: Scores, target: str) -> list[str]:
    """What the bars of one target modality say."""
    things = THINGS[target]
    sentences = []
    zero = {s: scores[s, "zero-shot", target] for s in ("MMT", "MMP")
            if (s, "zero-shot", target) in scores}  # fmt: skip
    if zero:
        numbers = dict(zip(zero, [f"{row.mean:.3f}" for row in zero.values()], strict=True))
        parts = [
            f"{system} {numbers[system]} ({beside_chance(row)})" for system, row in zero.items()
        ]
        sentences.append(f"Without labelled {things}: {listed(parts)}.")
    every = [s for s in (SINGLE[target], "MMT", "MMP") if (s, "all", target) in scores]  # type: ignore[index]
    rows = sorted((scores[s, "all", target] for s in every), key=lambda row: -row.mean)
    if rows:
        order = ", ".join(f"{row.system} {row.mean:.3f}" for row in rows)
        sentences.append(f"With all training data, best first: {order}{_closeness(rows)}.")
    if "MMT" in zero and ("MMT", "all", target) in scores:
        sentences.append(_gain(zero["MMT"], scores["MMT", "all", target], things))
    return sentences


def _closeness(rows: Sequence[SummaryRow]) -> str:
    if len(rows) < 2 or min(row.seeds for row in rows) < 2:
        return ""
    # of the rounded scores, so that the reader who subtracts finds the same
    gap, spread = round(rows[0].mean, 3) - round(rows[-1].mean, 3), max(row.std for row in rows)
    if gap <= spread:
        return f"; first and last are {gap:.3f} apart, no more than the seeds’ spread"
    return f"; first and last are {gap:.3f} apart"


def _gain(zero: SummaryRow, full: SummaryRow, things: str) -> str:
    gain = round(full.mean, 3) - round(zero.mean, 3)
    before, after = f"{zero.mean:.3f}", f"{full.mean:.3f}"
    aside = ""
    if min(zero.seeds, full.seeds) > 1 and abs(gain) <= max(zero.std, full.std):
        aside = ", no more than the seeds’ spread"
    if before == after:
        what = f"change nothing for MMT ({after} both times)"
    elif gain > 0:
        what = f"add {gain:.3f} to MMT (from {before} to {after}{aside})"
    else:
        what = f"cost MMT {-gain:.3f} (from {before} to {after}{aside})"
    return f"Labelled {things} {what}; for a perfect translation they would change nothing."


def paper_share(scores: Scores, target: str) -> tuple[float, SummaryRow] | None:
    """MMT zero-shot as a share of the best system on `target`, with that system's row."""
    zero = scores.get(("MMT", "zero-shot", target))
    rows = [row for (_, _, where), row in scores.items() if where == target]
    best = max(rows, key=lambda row: row.mean, default=None)
    if zero is None or best is None or best.mean <= 0:
        return None
    return zero.mean / best.mean, best
