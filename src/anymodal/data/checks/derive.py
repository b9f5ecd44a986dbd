"""The properties of a clip table that are checked, as plain columns."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from anymodal.core import archive
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.data.clips import COLUMNS, SCHEMA, SPLITS
from anymodal.data.quality import COLUMNS as MEASURES
from anymodal.data.quality import empty_quality

_STRINGS = tuple(field.name for field in SCHEMA if str(field.type) == "string")


def derive(clips: pd.DataFrame, quality: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the table with further columns, the measures in `quality` among them.

    wrong         names of the columns whose value does not have the contract's type, or ""
    labels        the list's strings with blanks between; null where it is no list
    media         audio, image, both or none
    part          subset/split; null where either is
    group_parts, file_parts   distinct parts among the rows of the same group, of the same file
    partners      distinct media among the rows of the same instrument and part
    mismatch      why audio and image are not known to be of the same second, or ""
    """
    table = clips.loc[:, list(COLUMNS)].reset_index(drop=True)
    wrong = pd.Series("", index=table.index)
    for column in (*_STRINGS, "start_s", "labels"):
        valid = {"start_s": _is_time, "labels": _are_labels}.get(column, _is_text)
        wrong = wrong.mask(~table[column].map(valid).astype(bool), wrong + f"{column} ")
    table["wrong"] = wrong.str.strip()
    table["labels"] = [" ".join(v) if _are_labels(v) else None for v in table["labels"]]
    audio, image = table["audio"].notna(), table["image"].notna()
    table["media"] = np.select([audio & image, audio, image], ["both", "audio", "image"], "none")
    table["part"] = _text(table["subset"]) + "/" + _text(table["split"])
    part = table["part"].fillna("none")
    table["group_parts"] = part.groupby(_text(table["group"])).transform("nunique")
    files = [part.groupby(_text(table[m])).transform("nunique") for m in ("audio", "image")]
    table["file_parts"] = pd.concat(files, axis=1).max(axis=1)
    classes = _text(table["instrument"])
    partners = table["media"].groupby([part, classes]).transform("nunique")
    table["partners"] = partners.where(classes.notna() & table["part"].notna())
    measures = empty_quality() if quality is None else quality
    rows = measures.drop_duplicates("clip_id").set_index("clip_id")
    rows = rows.reindex(_text(table["clip_id"]))
    for name in MEASURES[1:]:
        table[name] = rows[name].to_numpy()
    table["measured"] = table["clip_id"].isin(measures["clip_id"])
    names = ["clip_id", "audio", "image", "group", "video_id", "offset_s", "damage"]
    table["mismatch"] = [_mismatch(*row) for row in table[names].itertuples(index=False)]
    return table


def class_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of every class of a derived table, in the parts whose balance matters.

    Columns: part (classification/<split>, or translation as a whole), media, instrument, rows,
    departure (relative, from the mean class size) and ratio (of the largest class to this one).
    """
    serving = table.loc[table["subset"] == "classification", "instrument"]
    instruments = _text(serving if serving.notna().any() else table["instrument"])
    parts = [*(f"classification/{split}" for split in SPLITS), "translation"]
    media = ["both"] if table["pairing"].iloc[0] == "clip" else ["audio", "image"]
    part = table["part"].mask(table["subset"] == "translation", "translation")
    rows = table.groupby([part, table["media"], _text(table["instrument"])]).size()
    cells = [parts, media, sorted(instruments.dropna().unique())]
    index = pd.MultiIndex.from_product(cells, names=["part", "media", "instrument"])
    counts = rows.reindex(index, fill_value=0).rename("rows").reset_index()
    cell = counts.groupby(["part", "media"])["rows"]
    counts["departure"] = (counts["rows"] / cell.transform("mean") - 1).abs().fillna(np.inf)
    counts["ratio"] = (cell.transform("max") / counts["rows"]).fillna(np.inf)
    return counts


def pivot(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Rows of every instrument and media of a derived table in each part, as records."""
    rows = [_text(table["instrument"]).fillna("(none)"), table["media"]]
    return pd.crosstab(rows, table["part"].fillna("(none)")).reset_index().to_dict("records")


def _mismatch(
    clip_id: Any, audio: Any, image: Any, group: Any, video_id: Any, offset_s: Any, damage: Any
) -> str:
    members = [archive.split_member(p) if isinstance(p, str) else None for p in (audio, image)]
    if None in members:
        return ""
    stems = {(shard, member.rpartition(".")[0]) for shard, member in filter(None, members)}
    if len(stems) > 1 or {stem for _, stem in stems} != {clip_id}:
        return "audio and image are not those of one clip"
    if isinstance(damage, str):
        return damage
    if isinstance(video_id, str) and video_id != group:
        return "its shard names another video"
    # 1 ms of rounding
    if not pd.isna(offset_s) and not 0 <= offset_s <= WINDOW_SECONDS + 1e-3:
        return "its frame lies outside its second of audio"
    return ""


def _text(column: pd.Series) -> pd.Series:
    """As strings, so that values of other types are reported instead of raising errors."""
    return column.map(str, na_action="ignore").astype(object)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _is_time(value: Any) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < math.inf


def _are_labels(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and all(isinstance(v, str) for v in value)
