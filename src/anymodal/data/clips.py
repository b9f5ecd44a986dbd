"""The clip table, the contract between the sources of data and everything after them.

One row is one window of one recording, or one image; the columns are those of `SCHEMA`.
Paths are relative to the folder of the table's source unless absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
        # content hash of its media; unique; embeddings are keyed by it
        pa.field("clip_id", pa.string(), nullable=False),
        # paths of the media; at least one is given
        pa.field("audio", pa.string()),
        pa.field("image", pa.string()),
        # seconds into the recording at which the window starts; 0 for images
        pa.field("start_s", pa.float64(), nullable=False),
        # AudioSet mids, all that apply
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        # one of the classes, or null when none or several apply
        pa.field("instrument", pa.string()),
        # collection that the media come from
        pa.field("source", pa.string(), nullable=False),
        # shared by rows that must not be split apart: channels of a take, windows of a file,
        # near-duplicate images, segments of a video
        pa.field("group", pa.string(), nullable=False),
        # `clip`: audio and image are the same second of one recording; `class`: of one label
        pa.field("pairing", pa.string(), nullable=False),
        # null before subsets are drawn
        pa.field("subset", pa.string()),
        pa.field("split", pa.string()),
    ]
)
COLUMNS = tuple(SCHEMA.names)


def validate(clips: pd.DataFrame) -> pd.DataFrame:
    """Return `clips` with its columns in contract order, or raise `AnymodalError`.

    Expectations of counts (balance, skew) are in `anymodal.data.checks`.
    """
    clips = with_schema(clips, SCHEMA, "clip table", "clip")
    faults = {
        "repeats a clip_id": clips["clip_id"].duplicated(),
        "has neither audio nor image": clips["audio"].isna() & clips["image"].isna(),
        "has a negative start_s": clips["start_s"] < 0,
        "has a subset or split alone": clips["subset"].isna() != clips["split"].isna(),
    }
    for column, allowed in (("subset", SUBSETS), ("split", SPLITS), ("pairing", PAIRINGS)):
        unknown = clips[column].notna() & ~clips[column].isin(allowed)
        faults[f"has a {column} other than {', '.join(allowed)}"] = unknown
    refuse_rows(clips, "clip", faults)
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


def with_schema(table: pd.DataFrame, schema: pa.Schema, name: str, kind: str) -> pd.DataFrame:
    """Return the columns of `schema` in order; refuse missing ones, and nulls where forbidden."""
    missing = [column for column in schema.names if column not in table.columns]
    if missing:
        raise AnymodalError(f"{name} lacks the column(s) {', '.join(missing)}")
    table = table.loc[:, list(schema.names)]
    required = [field.name for field in schema if not field.nullable]
    refuse_rows(table, kind, {f"has no {column}": table[column].isna() for column in required})
    return table


def refuse_rows(table: pd.DataFrame, kind: str, faults: Mapping[str, pd.Series]) -> None:
    """Raise `AnymodalError` where a row has a fault; it is named by its first column."""
    for fault, has_it in faults.items():
        rows = table[has_it]
        if len(rows):
            raise AnymodalError(f"{kind} {rows.iloc[0, 0]!r} ({len(rows)} row(s) in all) {fault}")
