"""Names of what results are about, and numbers as text: for the report and the model cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from anymodal.core.record import Pairing

__all__ = [
    "COUNTED", "DIRECTIONS", "MODALITY_NAMES", "PAIRING_LIMIT", "PAIRING_MEANING",
    "PROTOCOL_NAMES", "REGIME_NAMES", "SYNTHETIC_NAMES", "counted", "counts", "interval", "listed",
    "mean_std", "number", "percent",
]  # fmt: skip
"""What templates get."""

MODALITY_NAMES = {"audio": "audio", "image": "images", "both": "clips"}
COUNTED = {"audio": "audio clips", "image": "images", "both": "clips"}
"""What rows of a modality are called beside their number."""
DIRECTIONS = {"audio_to_image": "audio → image", "image_to_audio": "image → audio"}
REGIME_NAMES = {"zero-shot": "zero-shot", "all": "all data"}
PROTOCOL_NAMES = {
    "within": "within sources",
    "size_matched": "size-matched within sources",
    "cross_source": "across sources",
}
SYNTHETIC_NAMES = {
    "noise": "noise, clicks and silence",
    "speech-like": "speech-like audio",
    "texture": "plain colours and textures",
}
"""Kinds of `anymodal.classifier.synthetic_ood`."""
PAIRING_MEANING: dict[Pairing, str] = {
    "clip": (
        "Audio and image of a clip are the same second of one recording. The translation was "
        "trained without any label."
    ),
    "class": (
        "Audio and images are paired by label alone; nothing was filmed together. The translation "
        "was trained with these labels, so this is not the paper’s label-free setting."
    ),
}
PAIRING_LIMIT: dict[Pairing, str] = {
    "clip": "Labels were given for the audio of a clip; its image may show something else.",
    "class": (
        "Class pairing is easier than the paper’s task: the translation learned the classes from "
        "labels. MMT may score above a classifier trained on the target modality, and a share "
        "above 100\N{NO-BREAK SPACE}% is possible."
    ),
}


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = words or [""]
    return f"{', '.join(head)} and {last}" if head else last


def counted(count: int, modality: str) -> str:
    """`1,200 audio clips`."""
    return f"{count:,} {COUNTED[modality]}"


def counts(rows: Mapping[str, int]) -> str:
    """`1,200 audio clips and 30 images`."""
    return listed([counted(count, modality) for modality, count in rows.items()])


def percent(share: float | None, decimals: int = 0) -> str:
    """`84 %`, with a no-break space; a dash where there is no share."""
    return "–" if share is None else f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def number(value: float | None, form: str = ".3f") -> str:
    """Three decimals; a dash for None and NaN."""
    return "–" if value is None or isnan(value) else format(value, form)


def mean_std(mean: float, std: float, repetitions: int) -> str:
    """`0.840 ± 0.024`, or the mean alone where nothing was repeated."""
    return f"{mean:.3f} ± {std:.3f}" if repetitions > 1 else f"{mean:.3f}"


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """`0.738 to 0.922`; empty where the interval is undefined."""
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}"
