"""What the numbers of `judge.json` say, in sentences."""

from __future__ import annotations

from anymodal.report.names import THINGS
from anymodal.report.records import Judged, JudgedFusion, JudgedModality
from anymodal.report.wording import percent

_KINDS = {
    "noise": "noise, clicks and silence",
    "speech-like": "speech-like sounds",
    "texture": "plain colours and textures",
}


def calibration_reading(found: JudgedModality, modality: str) -> list[str]:
    """How far probabilities can be believed."""
    if not found.test_rows or found.ece is None or found.ece_of_votes is None:
        return [f"There are no {THINGS[modality]} to test it on."]
    change = "brings it to" if found.ece < found.ece_of_votes else "does not help: that makes it"
    return [
        f"The forest’s votes are off by {found.ece_of_votes:.3f} on average (expected calibration "
        f"error); calibration, with one number fitted on validation rows (temperature "
        f"{found.temperature:.2f}), {change} {found.ece:.3f}.",
        f"The {found.test_rows} test {THINGS[modality]} leave a dot with few rows much to chance.",
    ]


def unknown_reading(judged: Judged) -> list[str]:
    """How often it abstains, and of what."""
    sentences = []
    for modality, found in judged.modalities.items():
        if found.known is None or found.threshold is None:
            continue
        of_those = (
            ""
            if found.accuracy_of_known is None
            else f", and {percent(found.accuracy_of_known)} of those named rightly"
        )
        sentences.append(
            f"Of the test {THINGS[modality]}, all of instruments that it knows, "
            f"{percent(found.known)} are kept{of_those}."
        )
    called = [
        f"{percent(one.unknown)} of {one.items} {_KINDS.get(kind, kind)}"
        for kind, one in judged.unknown.items()
    ]
    if called:
        sentences.append(f"Called unknown are, all computed: {'; '.join(called)}.")
    sentences.append(
        f"The threshold was set to keep {percent(judged.keep)} of the validation rows. Real "
        "recordings of other things, and instruments that it never met, were not tested."
    )
    return sentences


def fusion_reading(fusion: JudgedFusion) -> list[str]:
    """Whether both modalities together do better than one."""
    if fusion.interval is None or fusion.difference is None:
        return ["No sound and picture of the test rows go together, so fusion was not measured."]
    low, high = fusion.interval
    together = (
        "of the same moment"
        if fusion.pairing == "clip"
        else "that share nothing but their class, every sound with every picture"
    )
    shares = [percent(one or 0.0, 1) for one in (fusion.audio, fusion.image, fusion.both)]
    if low > 0:
        verdict = "better than the better one alone"
    elif high < 0:
        verdict = "worse than the better one alone"
    else:
        verdict = "not told apart from the better one alone"
    return [
        f"On {fusion.pairs:,} test pairs {together}, sounds alone name {shares[0]} rightly, "
        f"pictures alone {shares[1]}, both together {shares[2]}.",
        f"That is {verdict} ({THINGS[fusion.better]}): {100 * fusion.difference:+.1f} points "
        f"({100 * low:+.1f} to {100 * high:+.1f} with other recordings and pictures).",
    ]
