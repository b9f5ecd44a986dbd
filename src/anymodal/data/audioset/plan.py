"""The plan: which second of which video serves which subset, and what replaces the dead.

One row is one video. Columns, in order:

===========  ==========================================================================
video_id     YouTube id; unique
start_s      seconds into the video at which its segment starts
end_s        seconds into the video at which its segment ends
labels       list of AudioSet mids of the segment, sorted
instrument   one of the 18 classes, or null when none or several apply
subset       translation, retrieval or classification
split        train, valid or test; null for a reserve, which takes the split of the
             video that it replaces
role         `wanted`, or `reserve`
rank         place, from 0, among the rows of the same subset and role (in the
             classification subset: of the same class too). Reserves are used in this
             order.
window_s     seconds into the video at which the second of audio starts
frame_s      seconds into the video of the frame, within that same second
===========  ==========================================================================

Rows are ordered by subset (classification, retrieval, translation), role, class, rank.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.core.storage import atomic_path
from anymodal.data.clips import SPLITS, SUBSETS, refuse_rows, with_schema
from anymodal.ontology.instruments import INSTRUMENTS, of_labels

ROLES = ("wanted", "reserve")

SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("instrument", pa.string()),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("role", pa.string(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("window_s", pa.float64(), nullable=False),
        pa.field("frame_s", pa.float64(), nullable=False),
    ]
)
COLUMNS = tuple(SCHEMA.names)

ACCOUNT_COLUMNS = ("subset", "instrument", "wanted", "available", "taken", "reserve", "note")

_METADATA = b"anymodal.plan"
# times are kept in seconds; sums of milliseconds are not exact in them
_SLACK_S = 1e-6


@dataclass(frozen=True)
class Plan:
    """What was drawn, and from what."""

    table: pd.DataFrame
    """See the module's text."""
    account: pd.DataFrame
    """Columns `ACCOUNT_COLUMNS`: a line for every subset and class, `other` (none or several
    classes) and `all`; then `unused`. `available`: videos left when the subset was drawn; `wanted`
    is null where no number was asked for."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rows on the way to what could be drawn from, by step."""


def validate_plan(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with its columns in order, or raise `AnymodalError`."""
    table = with_schema(table, SCHEMA, "plan", "video")

    def refuse(bad: pd.Series | np.ndarray, what: str) -> None:
        refuse_rows(table, "video", bad, what)

    refuse(table["video_id"].duplicated(), "is in the plan twice")
    for column, allowed in (("subset", SUBSETS), ("role", ROLES)):
        refuse(~table[column].isin(allowed), f"has a {column} other than {', '.join(allowed)}")
    wanted = table["role"] == "wanted"
    refuse(wanted & ~table["split"].isin(SPLITS), f"has no split of {', '.join(SPLITS)}")
    refuse(~wanted & table["split"].notna(), "is a reserve and has a split")
    unknown = table["instrument"].notna() & ~table["instrument"].isin(INSTRUMENTS)
    refuse(unknown, "has an unknown instrument")
    classified = table["subset"] == "classification"
    refuse(classified & table["instrument"].isna(), "is for classification and has no class")
    class_of = cache(of_labels)
    of_its_labels = pd.Series([class_of(tuple(each)) for each in table["labels"]], table.index)
    other = of_its_labels.fillna("") != table["instrument"].fillna("")
    refuse(other, "has an instrument other than that of its labels")
    start, end = table["start_s"], table["end_s"]
    window, frame = table["window_s"], table["frame_s"]
    outside = (window < start - _SLACK_S) | (window + WINDOW_SECONDS > end + _SLACK_S) | (start < 0)
    refuse(outside, "has a window outside its segment")
    outside = (frame < window - _SLACK_S) | (frame > window + WINDOW_SECONDS + _SLACK_S)
    refuse(outside, "has a frame outside its second of audio")
    of_class = table["instrument"].where(classified, "")
    ranks = table.groupby([table["subset"], of_class, table["role"]])["rank"]
    refuse(table["rank"] != ranks.rank(method="first") - 1, "has a rank that repeats or skips")
    return table


def write_plan(path: str | Path, plan: Plan) -> None:
    """Validate a plan and write it as parquet; account and counts are the file's metadata."""
    account = json.loads(plan.account.to_json(orient="records"))
    metadata = json.dumps({"account": account, "counts": plan.counts})
    table = pa.Table.from_pandas(validate_plan(plan.table), schema=SCHEMA, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({_METADATA: metadata}), temporary)


def read_plan(path: str | Path) -> Plan:
    """Read and validate a plan; `labels` are lists, missing strings None."""
    path = Path(path)
    if not path.is_file():
        raise AnymodalError(f"no plan at {path}; run `anymodal audioset` first")
    try:
        content = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise AnymodalError(f"{path} is not a readable parquet file ({error})") from error
    try:
        metadata = json.loads((content.schema.metadata or {})[_METADATA])
        account = pd.DataFrame(metadata["account"], columns=list(ACCOUNT_COLUMNS))
        counts = {str(name): int(count) for name, count in metadata["counts"].items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise AnymodalError(f"{path} is not a plan: it has no account; use --replan") from error
    # earlier versions called a window a moment
    table = content.to_pandas().rename(columns={"moment_s": "window_s"})
    return Plan(validate_plan(tidy_table(table)), tidy_account(account), counts)


def tidy_table(table: pd.DataFrame) -> pd.DataFrame:
    """A plan's columns in their types: strings or None, labels as lists."""
    tidy = table.copy(deep=False)
    for name in (each.name for each in SCHEMA if pa.types.is_string(each.type)):
        if name in tidy:
            texts = tidy[name].astype(object)
            tidy[name] = texts.where(texts.notna(), None)
    if "labels" in tidy:
        tidy["labels"] = [list(labels) for labels in tidy["labels"]]
    return tidy


def tidy_account(account: pd.DataFrame) -> pd.DataFrame:
    """The account's columns, with whole numbers of which `wanted` may be null."""
    numbers = {"wanted": "Int64", "available": "int64", "taken": "int64", "reserve": "int64"}
    return account.loc[:, list(ACCOUNT_COLUMNS)].astype(numbers)
