"""The datasheet of a feature pack, after "Datasheets for Datasets" (Gebru et al., 2021)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader

from anymodal.data.pack import PackInfo

UNKNOWN = "not stated"


class MediaSource(NamedTuple):
    """Where the media of one source tag come from."""

    source: str
    origin: str = UNKNOWN
    licence: str = UNKNOWN
    caveat: str = ""
    """What limits the conclusions that can be drawn from it."""


def media_sources() -> dict[str, MediaSource]:
    """Return the known sources by tag, from media_sources.csv."""
    table = resources.files("anymodal.data").joinpath("media_sources.csv")
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return {row["source"]: MediaSource(**row) for row in rows}


def datasheet(info: PackInfo, clips: pd.DataFrame) -> str:
    """Return the datasheet of a pack with these clips, as Markdown; `info.files` is not used."""
    known = media_sources()
    sources = [known.get(tag, MediaSource(tag)) for tag in sorted(clips["source"].unique())]
    environment = Environment(
        loader=PackageLoader("anymodal.data", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["row"] = _row
    return environment.get_template("datasheet.md.j2").render(
        info=info,
        clips=clips.assign(**{"class": clips["instrument"].fillna("(none)")}),
        sources=sources,
        unlicensed=[s.source for s in sources if s.licence.startswith(("none", UNKNOWN))],
        single=_single_source_classes,
    )


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"


def _single_source_classes(clips: pd.DataFrame) -> list[str]:
    sources = clips.groupby("instrument")["source"].nunique()
    return sources.index[sources == 1].tolist()
