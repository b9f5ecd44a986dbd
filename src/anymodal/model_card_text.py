"""What model cards share: their Markdown, and the sections that both kinds of model have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anymodal import encoders
from anymodal.encoders.base import MODALITIES
from anymodal.report import wording

LIMIT = 5000
"""Characters of a description that MLflow's database keeps."""

THINGS = {"audio": "sounds", "image": "pictures"}


@dataclass(frozen=True)
class Known:
    """What the stages wrote, as far as it is there and belongs to the model."""

    dataset: Mapping[str, Any] = field(default_factory=dict)
    """`dataset.json`."""
    sources: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Clips by source, by modality."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """`training.json` of the pair."""
    retrieval: Mapping[str, Any] = field(default_factory=dict)
    """Retrieval scores of the pair."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """`results.json` of the classification."""
    judged: Mapping[str, Any] = field(default_factory=dict)
    """`judge.json` of the classification."""
    across: Mapping[str, Any] = field(default_factory=dict)
    """`across.json`."""

    def of(self, pair: str | None) -> Known:
        """The same without the results of other pairs of encoders."""
        results, judged, across = (
            one if one.get("pair") == pair else {}
            for one in (self.results, self.judged, self.across)
        )
        return replace(self, results=results, judged=judged, across=across)


def shortened(card: str, limit: int = LIMIT, rest: str = "") -> str:
    """The card's first sections, as many as have room; `rest` says where the others are."""
    if len(card) <= limit:
        return card
    head, *sections = re.split(r"\n(?=## )", card)
    kept = head[: limit - len(rest) - 1]
    for section in sections:
        if len(kept) + len(section) + len(rest) + 2 > limit:
            break
        kept += "\n" + section
    return f"{kept}\n{rest}"


def version_section(lines: Iterable[str]) -> str:
    """The card's end: which version of what code."""
    return "\n" + section("Version", "\n".join(f"- {line}" for line in lines)) + "\n"


def uses_section(good: str, bad: str) -> str:
    return section("Intended use", f"For: {good}", f"Not for: {bad}")


def limits_section(pairing: str | None, about: Known) -> str:
    lines = []
    if pairing:
        lines.append(wording.pairing_limit(pairing))
    tested = {row["target"]: row["test_rows"] for row in about.results.get("summary", ())}
    if tested:
        counts = [f"{count:,} {THINGS[target]}" for target, count in tested.items()]
        lines.append(f"It was tested on {wording.listed(counts)} of one dataset.")
    for modality, found in about.sources.items():
        if len(found) == 1:
            lines.append(
                f"All {THINGS[modality]} are of one source ({next(iter(found))}): how it does on "
                "those of another is not known."
            )
    for target, found in about.across.get("targets", {}).items():
        means = {
            one["protocol"]: one["mean"]
            for one in found.get("scores", ())
            if (one["system"], one["regime"]) == ("MMT", "all")
        }
        if {"within", "across"} <= set(means):
            lines.append(
                f"On {THINGS[target]} of sources that its training had nothing of, MMT reaches "
                f"{means['across']:.3f}; where it had, {means['within']:.3f}."
            )
    lines.append(
        "It hears one second at a time and sees single pictures: of longer sounds and films it "
        "averages moments, and movement tells it nothing."
    )
    return section("Limits", "\n".join(f"- {line}" for line in lines))


def pairing_section(pairing: str | None) -> str:
    if not pairing:
        return ""
    return section("Pairing", f"`pairing: {pairing}`. {wording.pairing_words(pairing)}")


def data_section(name: str | None, about: Known, train_rows: Mapping[str, int] | None) -> str:
    told: list[str] = []
    facts = about.dataset
    if not facts:
        told.append(f"Dataset {name or 'unknown'}.")
        if train_rows:
            counts = [f"{train_rows[m]} {THINGS[m]}" for m in MODALITIES]
            told.append(f"The forest was trained on {wording.listed(counts)}.")
        return section("Data", *told)
    told.append(
        f"Dataset {facts['name']} (source: {facts['source']}): {facts['rows']['audio']:,} sounds "
        f"and {facts['rows']['image']:,} pictures of {facts['groups']:,} recordings."
    )
    counts_of: dict[tuple[str, str], dict[str, int]] = {}
    for row in facts["account"]:
        if row["subset"] != "unused":
            place = counts_of.setdefault((row["subset"], row["split"]), {})
            place[row["modality"]] = place.get(row["modality"], 0) + row["taken"]
    both = any("both" in found for found in counts_of.values())
    columns = ("both",) if both else MODALITIES
    told.append(
        table(
            ("subset", "split", *("clips" if m == "both" else THINGS[m] for m in columns)),
            [(*place, *(found.get(m, 0) for m in columns)) for place, found in counts_of.items()],
        )
    )
    for modality, sources in about.sources.items():
        listed = ", ".join(f"{source} {count:,}" for source, count in sources.items())
        told.append(f"Sources of the {THINGS[modality]}: {listed}.")
    if facts["left_out"]:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in facts["left_out"].items())
        told.append(f"Classes left out: {reasons}.")
    return section("Data", *told)


def encoders_section(used: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for modality in MODALITIES:
        one = used[modality]
        known = one["name"] in encoders.names()
        info = encoders.info(one["name"]) if known else None
        rows.append(
            (
                modality, one["name"], one["version"], one.get("precision", "float32"),
                info.licence or "unknown" if info else "unknown",
                info.summary if info else "not registered here",
            )
        )  # fmt: skip
    return section(
        "Encoders",
        "Frozen, as their publishers trained them.",
        table(("modality", "name", "version", "precision", "licence of the weights", "what"), rows),
    )


def spread(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.3f}" + (f" ± {row['std']:.3f}" if row["seeds"] > 1 else "")


def interval(one: Mapping[str, Any]) -> str:
    if one.get("low") is None or one.get("high") is None:
        return "unknown"
    return f"{one['low']:.3f} to {one['high']:.3f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines
    )


def section(title: str, *paragraphs: str) -> str:
    return "\n\n".join([f"## {title}", *(text for text in paragraphs if text)])


def joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
