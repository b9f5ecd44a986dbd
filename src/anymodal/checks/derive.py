"""What the rules ask about a clip table, as plain columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from anymodal import archive
from anymodal.dataset.clips import COLUMNS, SCHEMA
from anymodal.dataset.quality import COLUMNS as MEASURES

WINDOW_S = 1.0
"""Length of a clip's sound, seconds."""
_STRINGS = tuple(field.name for field in SCHEMA if str(field.type) == "string")


def derive(clips: pd.DataFrame, quality: pd.DataFrame | None = None) -> pd.DataFrame:
    """The table with further columns, one row a row.

    quality: what was measured of the media, see `anymodal.dataset.quality`; None: nothing was.

    wrong         names of the columns whose value has not the contract's type, or ""
    labels        the list's strings with blanks between; null where it is no list
    media         audio, image, both or none
    part          subset/split; null where either is
    group_parts   distinct parts among the rows of the same group
    file_parts    distinct parts among the rows of the same file
    partners      distinct media among the rows of the same instrument and part
    moment        why sound and picture cannot be said to be of the same second, or "" (members of
                  shards alone say where they are from)
    measured      whether `quality` has the row; its columns follow, null where it has not
    """
    table = clips.loc[:, list(COLUMNS)].reset_index(drop=True)
    wrong = pd.Series("", index=table.index)
    for column in _STRINGS:
        if not _all_text(table[column]):
            good = table[column].map(lambda value: isinstance(value, str) or _is_null(value))
            wrong = wrong.mask(~good.astype(bool), wrong + f"{column} ")
    start = pd.to_numeric(table["start_s"], errors="coerce")
    wrong = wrong.mask(~((start >= 0) & np.isfinite(start)), wrong + "start_s ")
    lists = table["labels"].map(_are_labels).astype(bool)
    table["wrong"] = wrong.mask(~lists, wrong + "labels ").str.strip()
    table["labels"] = [
        " ".join(each) if good else None for each, good in zip(table["labels"], lists, strict=True)
    ]
    audio, image = table["audio"].notna(), table["image"].notna()
    table["media"] = np.select([audio & image, audio, image], ["both", "audio", "image"], "none")
    table["part"] = _text(table["subset"]) + "/" + _text(table["split"])
    part = table["part"].fillna("none")
    table["group_parts"] = part.groupby(_text(table["group"])).transform("nunique")
    files = [part.groupby(_text(table[each])).transform("nunique") for each in ("audio", "image")]
    table["file_parts"] = pd.concat(files, axis=1).max(axis=1)
    classes = _text(table["instrument"])
    media = table["media"].groupby([part, classes]).transform("nunique")
    table["partners"] = media.where(classes.notna() & table["part"].notna())
    _add_measures(table, quality)
    return table


def _add_measures(table: pd.DataFrame, quality: pd.DataFrame | None) -> None:
    columns = [name for name in MEASURES if name != "clip_id"]
    if quality is None:
        quality = pd.DataFrame(columns=list(MEASURES))
    rows = quality.drop_duplicates("clip_id").set_index("clip_id").reindex(_text(table["clip_id"]))
    for name in columns:
        table[name] = rows[name].to_numpy()
    table["measured"] = table["clip_id"].isin(quality["clip_id"])
    names = ("clip_id", "audio", "image", "group", "video_id", "offset_s", "damage")
    table["moment"] = [_moment(*row) for row in zip(*(table[name] for name in names), strict=True)]


def _moment(
    clip_id: Any, audio: Any, image: Any, group: Any, video_id: Any, offset_s: Any, damage: Any
) -> str:
    parts = [
        archive.split_member(each) if isinstance(each, str) else None for each in (audio, image)
    ]
    if None in parts:
        return ""
    stems = {(shard, member.rpartition(".")[0]) for shard, member in filter(None, parts)}
    if {stem for _, stem in stems} != {clip_id} or len(stems) > 1:
        return "sound and picture are not those of one clip"
    if isinstance(damage, str):
        return damage
    if isinstance(video_id, str) and video_id != group:
        return "its shard names another video"
    # 1 ms of rounding
    if not _is_null(offset_s) and not 0 <= offset_s <= WINDOW_S + 1e-3:
        return "its frame lies outside its second of sound"
    return ""


def count(table: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    """Rows of every instrument and medium in each part, as records; from a derived table."""
    instrument = _text(table["instrument"]).fillna("(none)")
    cells = table.groupby([instrument, table["media"], table["part"].fillna("(none)")]).size()
    wide = cells.unstack(fill_value=0).reset_index()
    wide.columns.name = None
    return tuple(
        {str(key): value if isinstance(value, str) else int(value) for key, value in record.items()}
        for record in wide.to_dict(orient="records")
    )


def _text(column: pd.Series) -> pd.Series:
    """As strings, so that a value of another type is reported and not tripped over."""
    if _all_text(column):
        return column.astype(object)
    return column.map(lambda value: None if _is_null(value) else str(value)).astype(object)


def _all_text(column: pd.Series) -> bool:
    return pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty")


def _is_null(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _are_labels(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray)) and all(
        isinstance(each, str) for each in value
    )
