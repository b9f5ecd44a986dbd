"""The plan: which second of which video serves which subset, and what replaces the dead.

One row is one video, with the columns of `SCHEMA`; rows are ordered by subset (classification,
retrieval, translation), role, class and rank.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.core.storage import atomic_path
from anymodal.data.clips import SPLITS, SUBSETS, refuse_rows, with_schema
from anymodal.ontology.instruments import of_labels

ROLES = ("wanted", "reserve")

SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        # the segment, seconds into the video
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        # AudioSet mids, sorted
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        # one of the 18 classes, or null when none or several apply
        pa.field("instrument", pa.string()),
        pa.field("subset", pa.string(), nullable=False),
        # null for a reserve, which takes the split of the video that it replaces
        pa.field("split", pa.string()),
        pa.field("role", pa.string(), nullable=False),
        # place, from 0, among the rows of a subset (classification: of a class) and role; reserves
        # are used in this order
        pa.field("rank", pa.int64(), nullable=False),
        # where the second of audio starts, and the frame within it, seconds into the video
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
    account: pd.DataFrame
    """Columns `ACCOUNT_COLUMNS`: a line for every subset and class, `other` (none or several
    classes) and `all`; then `unused`. `available`: videos left when the subset was drawn."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rows on the way to what could be drawn from, by step."""


def validate_plan(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with its columns in order, or raise `AnymodalError`."""
    table = with_schema(table, SCHEMA, "plan", "video")
    start, end, window, frame = (table[n] for n in ("start_s", "end_s", "window_s", "frame_s"))
    wanted, classified = table["role"] == "wanted", table["subset"] == "classification"
    class_of = cache(of_labels)
    classes = pd.Series([class_of(tuple(each)) for each in table["labels"]], table.index)
    pool = [table["subset"], table["instrument"].where(classified, ""), table["role"]]
    ranks = table.groupby(pool)["rank"].rank(method="first") - 1
    late, outside = window + WINDOW_SECONDS + _SLACK_S, (window < start - _SLACK_S) | (start < 0)
    faults = {
        "is in the plan twice": table["video_id"].duplicated(),
        f"has a subset other than {', '.join(SUBSETS)}": ~table["subset"].isin(SUBSETS),
        f"has a role other than {', '.join(ROLES)}": ~table["role"].isin(ROLES),
        f"has no split of {', '.join(SPLITS)}": wanted & ~table["split"].isin(SPLITS),
        "is a reserve and has a split": ~wanted & table["split"].notna(),
        "is for classification and has no class": classified & table["instrument"].isna(),
        "has an instrument other than that of its labels": classes.fillna("")
        != table["instrument"].fillna(""),
        "has a window outside its segment": outside | (window + WINDOW_SECONDS > end + _SLACK_S),
        "has a frame outside its second of audio": (frame < window - _SLACK_S) | (frame > late),
        "has a rank that repeats or skips": table["rank"] != ranks,
    }
    refuse_rows(table, "video", faults)
    return table


def write_plan(path: str | Path, plan: Plan) -> None:
    """Validate a plan and write it as parquet; account and counts are the file's metadata."""
    account = json.loads(plan.account.to_json(orient="records"))
    metadata = json.dumps({"account": account, "counts": plan.counts})
    table = pa.Table.from_pandas(validate_plan(plan.table), schema=SCHEMA, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({_METADATA: metadata}), temporary)


def read_plan(path: str | Path) -> Plan:
    """Read and validate a plan."""
    path = Path(path)
    if not path.is_file():
        raise AnymodalError(f"no plan at {path}; run `anymodal audioset` first")
    try:
        content = pq.read_table(path)
        metadata = json.loads((content.schema.metadata or {})[_METADATA])
        account = pd.DataFrame(metadata["account"], columns=list(ACCOUNT_COLUMNS))
        counts = {str(name): int(count) for name, count in metadata["counts"].items()}
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise AnymodalError(f"{path} is not a plan ({error}); draw it again, --replan") from error
    # earlier versions called `window_s` so
    table = content.to_pandas().rename(columns={"moment_s": "window_s"})
    return Plan(validate_plan(table), tidy_account(account), counts)


def as_read(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the types that `read_plan` returns."""
    return pa.Table.from_pandas(table, schema=SCHEMA, preserve_index=False).to_pandas()


def tidy_account(account: pd.DataFrame) -> pd.DataFrame:
    """The account's columns, with whole numbers of which `wanted` may be null."""
    numbers = {"wanted": "Int64", "available": "int64", "taken": "int64", "reserve": "int64"}
    return account.loc[:, list(ACCOUNT_COLUMNS)].astype(numbers)
