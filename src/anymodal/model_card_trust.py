"""The section of a classifier's card on calibration, fusion and `unknown`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anymodal.encoders.base import MODALITIES
from anymodal.model_card_text import THINGS, section
from anymodal.report import wording

_KINDS = {
    "noise": "computed noise, clicks and silence",
    "speech-like": "computed sounds like speech",
    "texture": "computed colours and textures",
}


def trust_section(judge: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """From the model's own `judge.json` and from what `classify` measured, where it is known."""
    facts = judge.get("facts", {})
    if not facts:
        return section(
            "Trust",
            "Its probabilities are shares of the forest's trees and are not calibrated, and it "
            "calls nothing unknown but silence and blank pictures.",
        )
    return section(
        "Trust", _calibration(judge, measured), _fusion(facts, measured), _unknown(facts, measured)
    )


def _calibration(judge: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    rows = judge["facts"]["calibration_rows"]
    fitted = [
        f"{rows[m]:,} validation {THINGS[m]} (temperature {judge['temperatures'][m]:.2f})"
        for m in MODALITIES
    ]
    told = (
        f"Probabilities are calibrated by one number a modality, fitted on {' and '.join(fitted)}. "
    )
    found = [
        f"{one['ece_of_votes']:.3f} → {one['ece']:.3f} on {one['test_rows']:,} test {THINGS[m]}"
        for m, one in measured.get("modalities", {}).items()
        if one["ece"] is not None and one["ece_of_votes"] is not None
    ]
    if not found:
        return told + "What that is worth was not measured."
    return told + f"Expected calibration error, votes → calibrated: {'; '.join(found)}."


def _fusion(facts: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    told = (
        "Sound and picture of a film are fused by a weighted product of probabilities, fitted on "
        f"{facts['fusion_pairs']:,} validation pairs. "
    )
    found = measured.get("fusion", {})
    if found.get("interval") is None:
        return told + "What that is worth was not measured."
    low, high = found["interval"]
    kind = "filmed" if found["pairing"] == "clip" else "class-paired, not filmed"
    return told + (
        f"On {found['pairs']:,} test pairs ({kind}): sounds alone {100 * found['audio']:.1f} % "
        f"right, pictures alone {100 * found['image']:.1f} %, both {100 * found['both']:.1f} %; "
        f"{100 * found['difference']:+.1f} points beside {THINGS[found['better']]} "
        f"({100 * low:+.1f} to {100 * high:+.1f})."
    )


def _unknown(facts: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    told = (
        "It says `unknown` of silence, of blank pictures, and of what is less like its training "
        f"rows than a threshold that keeps {100 * facts['keep']:.0f} % of the validation rows. "
    )
    kept = [
        f"{100 * one['known']:.0f} % of {one['test_rows']:,} test {THINGS[m]}"
        for m, one in measured.get("modalities", {}).items()
        if one["known"] is not None
    ]
    if kept:
        told += f"It kept {wording.listed(kept)}. "
    called = [
        f"{100 * one['unknown']:.0f} % of {one['items']} {_KINDS.get(kind, kind)}"
        for kind, one in measured.get("unknown", {}).items()
    ]
    if called:
        told += f"It called unknown: {'; '.join(called)}. "
    return told + "Real recordings of other instruments resemble those it knows: many are named."
