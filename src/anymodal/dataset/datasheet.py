"""The datasheet of a feature pack, written from its facts.

After "Datasheets for Datasets" (Gebru et al., 2021): what it holds, where that comes from and
under which terms, how it was made, what it is for and what it must not be used to claim.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

UNKNOWN = "not stated"


@dataclass(frozen=True)
class MediaSource:
    """Where the media of one source tag come from."""

    source: str
    origin: str = UNKNOWN
    licence: str = UNKNOWN
    """As its publisher states it."""
    caveat: str = ""
    """What limits the conclusions that can be drawn from it."""


def media_sources() -> dict[str, MediaSource]:
    """The known sources by tag, from data/media_sources.csv."""
    table = resources.files("anymodal").joinpath("data/media_sources.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return {row["source"]: MediaSource(**row) for row in rows}


def datasheet(meta: Mapping[str, Any], clips: pd.DataFrame) -> str:
    """The datasheet as Markdown.

    Parameters
    ----------
    meta: pack.json; `files` is not used, as the datasheet is one of them.
    clips: the pack's clip table.
    """
    known = media_sources()
    sources = [known.get(tag, MediaSource(tag)) for tag in sorted(clips["source"].unique())]
    counts = meta["counts"]
    blocks = [
        f"# Datasheet of the feature pack {meta['name']}",
        meta["description"],
        "## What it holds",
        f"Embeddings of {counts['audio']['files']} recordings ({counts['audio']['clips']} "
        f"one-second windows) and {counts['image']['files']} pictures, of "
        f"{len(counts['classes'])} classes, from {len(sources)} sources. No raw media are "
        "included: `clips.parquet` tells the name of the file that an embedding came from, the "
        "files themselves are not here. The terms below are those of the media.",
        _count_table(clips, "instrument", "class"),
        f"`group` joins what must not be split apart ({counts['groups']} groups): windows of one "
        "recording, channels and parts of one take, near-duplicate pictures.",
        "## Where the media come from",
        "Licences as their publishers state them; where none is stated none may be assumed.",
        _table(
            ["source", "origin", "licence", "audio clips", "pictures"],
            [
                [source.source, source.origin, source.licence, *_counts(clips, "source", source)]
                for source in sources
            ],
        ),
        "## Encoders",
        _table(
            ["encoder", "modality", "dim", "clips", "failed", "version", "float16 error"],
            [
                [
                    f"`{name}`",
                    facts["modality"],
                    facts["dim"],
                    facts["rows"],
                    facts["failed"],
                    f"`{facts['version'][:12]}`",
                    f"{facts['float16_error']:.1e}",
                ]
                for name, facts in meta["encoders"].items()
            ],
        ),
        "The last column is the largest relative error that rounding to float16 makes to an "
        "embedding (norm of the difference over the norm). `version` is a hash of weights and "
        "preprocessing: embeddings of another version do not mix with these.",
        "## How it was made",
        f"`{meta['made']['command']}` with anymodal {meta['made']['anymodal']}: at most "
        f"{meta['windows']} one-second windows a recording, evenly spaced; files that are "
        "unreadable, that repeat another file or that are filed under two classes were left out "
        f"({len(meta['skipped'])}, listed in `pack.json`). The same media give the same files, "
        "byte by byte, on the same machine.",
        "## What it is for",
        "Running and testing the whole pipeline of anymodal without raw media; comparing "
        "translations, retrieval and classifiers on equal features; teaching.",
        "## What it must not be used to claim",
        _bullets(_limits(meta, clips, sources)),
        "## Clips a class and source",
        _table(
            ["class", "source", "audio clips", "pictures"],
            [
                [name or "(none)", tag, int(rows["audio"].notna().sum()), _pictures(rows)]
                for (name, tag), rows in clips.groupby(
                    [clips["instrument"].fillna(""), clips["source"]], sort=True
                )
            ],
        ),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _limits(
    meta: Mapping[str, Any], clips: pd.DataFrame, sources: Sequence[MediaSource]
) -> list[str]:
    limits = []
    if meta["pairing"] == "class":
        limits.append(
            "Anything about the same moment of one recording. The pack is **class-paired**: "
            "nothing was filmed, a sound and a picture belong together only by their label. What "
            "is learned from it is learned from labels."
        )
    limits += [
        "Results on AudioSet, or on any data but this: classes, counts and recording conditions "
        "are its own.",
        "Generalisation across sources. Recordings of one source share players, instruments and "
        "rooms, its pictures a style and a resolution; a split by `group` does not part them.",
    ]
    for column, what in (("audio", "recording"), ("image", "picture")):
        present = clips.loc[clips[column].notna()]
        if len(present) and present["source"].nunique() == 1:
            limits.append(
                f"Robustness to where a {what} comes from: every {what} is of the source "
                f"{present['source'].iloc[0]}."
            )
        lone = [
            str(name)
            for name, rows in present.groupby("instrument")
            if rows["source"].nunique() == 1
        ]
        if lone and present["source"].nunique() > 1:
            limits.append(
                f"That the instrument alone was recognised in {what}s of {', '.join(lone)}: all of "
                "the class are of one source, whose players, rooms or style are learned with it."
            )
    by_caveat: dict[str, list[str]] = {}
    for source in sources:
        if source.caveat:
            by_caveat.setdefault(source.caveat, []).append(source.source)
    if by_caveat:
        told = "; ".join(f"{', '.join(tags)}: {caveat}" for caveat, tags in by_caveat.items())
        limits.append(f"Performance on music as it is played and filmed. {told}.")
    unstated = [source.source for source in sources if source.licence.startswith(("none", UNKNOWN))]
    if unstated:
        limits.append(
            f"A right to use the media: no licence is stated for {', '.join(unstated)}. "
            "The pack is for research and teaching."
        )
    return limits


def _count_table(clips: pd.DataFrame, column: str, heading: str) -> str:
    rows: list[list[object]] = []
    for name, part in clips.groupby(clips[column].fillna("(none)"), sort=True):
        recordings = part["audio"].dropna().nunique()
        windows = int(part["audio"].notna().sum())
        rows.append([name, recordings, windows, _pictures(part), part["group"].nunique()])
    return _table([heading, "recordings", "audio clips", "pictures", "groups"], rows)


def _counts(clips: pd.DataFrame, column: str, source: MediaSource) -> list[int]:
    part = clips[clips[column] == source.source]
    return [int(part["audio"].notna().sum()), _pictures(part)]


def _pictures(clips: pd.DataFrame) -> int:
    return int(clips["image"].notna().sum())


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *map(line, rows)])


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
