"""The clip table, the contract between the sources of data and everything after them.

One row is one window of one recording, or one image. Columns, in order:

===========  ==========================================================================
clip_id      content hash of its media; unique; embeddings are keyed by it
audio        path of the audio, or null
image        path of the image, or null; at least one of the two is given
start_s      seconds into the recording at which the window starts; 0 for images
labels       list of AudioSet mids, all that apply
instrument   one of the instrument classes, or null when none or several apply
source       collection that the media come from
group        shared by rows that must not be split apart (channels of a take, windows
             of a file, near-duplicate images, segments of a video)
pairing      `clip`: audio and image of a row are the same second of one recording;
             `class`: they belong together only by their label
subset       translation, retrieval or classification; null before subsets are drawn
split        train, valid or test; null before subsets are drawn
===========  ==========================================================================

Paths are relative to the folder of the table's source unless absolute.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import atomic_path

SUBSETS = ("translation", "retrieval", "classification")
SPLITS = ("train", "valid", "test")
PAIRINGS = ("clip", "class")

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("audio", pa.string()),
        pa.field("image", pa.string()),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("instrument", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("pairing", pa.string(), nullable=False),
        pa.field("subset", pa.string()),
        pa.field("split", pa.string()),
    ]
)
COLUMNS = tuple(SCHEMA.names)


def validate(clips: pd.DataFrame) -> pd.DataFrame:
    """Return `clips` with its columns in contract order.

    Raises `AnymodalError` for missing columns, nulls, duplicate ids, rows without media, unknown
    subsets, splits or pairings, and groups in more than one split or subset. Expectations of
    counts (balance, skew) are in `anymodal.data.checks`.
    """
    clips = with_schema(clips, SCHEMA, "clip table", "clip")

    def refuse(bad: pd.Series, what: str) -> None:
        refuse_rows(clips, "clip", bad, what)

    refuse(clips["clip_id"].duplicated(), "repeats a clip_id")
    refuse(clips["audio"].isna() & clips["image"].isna(), "has neither audio nor image")
    refuse(clips["start_s"] < 0, "has a negative start_s")
    for column, allowed in (("subset", SUBSETS), ("split", SPLITS), ("pairing", PAIRINGS)):
        unknown = clips[column].notna() & ~clips[column].isin(allowed)
        refuse(unknown, f"has a {column} other than {', '.join(allowed)}")
    refuse(clips["subset"].isna() != clips["split"].isna(), "has a subset or split alone")
    if clips["pairing"].nunique() > 1:
        raise AnymodalError("clip table mixes clip and class pairing; use one source a table")
    drawn = clips.dropna(subset=["subset"])
    parts = (drawn["subset"] + "/" + drawn["split"]).groupby(drawn["group"]).nunique()
    divided = parts.index[parts > 1]
    if len(divided):
        raise AnymodalError(
            f"group {divided[0]!r} ({len(divided)} in all) is in more than one subset or split; "
            "draw the subsets again"
        )
    return clips


def write_clips(path: str | Path, clips: pd.DataFrame) -> None:
    """Validate `clips` and write them as parquet with the contract's schema."""
    table = pa.Table.from_pandas(validate(clips), schema=SCHEMA, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary)


def read_clips(path: str | Path) -> pd.DataFrame:
    """Read and validate a clip table; `labels` are lists, missing strings None."""
    path = Path(path)
    if not path.is_file():
        raise AnymodalError(f"no clip table at {path}; run `anymodal dataset` first")
    try:
        clips = pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise AnymodalError(f"{path} is not a readable parquet file ({error})") from error
    if "labels" in clips:
        clips["labels"] = [list(labels) for labels in clips["labels"]]
    return validate(clips)


def empty_clips() -> pd.DataFrame:
    """Return a clip table without rows."""
    return SCHEMA.empty_table().to_pandas()


def with_schema(table: pd.DataFrame, schema: pa.Schema, name: str, kind: str) -> pd.DataFrame:
    """Return the columns of `schema` in order; refuse missing ones, and nulls where forbidden."""
    missing = [column for column in schema.names if column not in table.columns]
    if missing:
        raise AnymodalError(f"{name} lacks the column(s) {', '.join(missing)}")
    table = table.loc[:, list(schema.names)]
    for column in (field.name for field in schema if not field.nullable):
        refuse_rows(table, kind, table[column].isna(), f"has no {column}")
    return table


def refuse_rows(table: pd.DataFrame, kind: str, bad: pd.Series | np.ndarray, what: str) -> None:
    """Raise `AnymodalError` that names the first bad row by its first column, if there is one."""
    rows = table[np.asarray(bad)]
    if len(rows):
        raise AnymodalError(f"{kind} {rows.iloc[0, 0]!r} ({len(rows)} row(s) in all) {what}")
