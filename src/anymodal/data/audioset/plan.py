"""The plan: which second of which video serves which subset, and what stands in for the dead.

One row is one video. Columns, in order:

===========  ==========================================================================
video_id     YouTube id; unique
start_s      seconds into the video at which its segment starts
end_s        seconds into the video at which its segment ends
labels       list of AudioSet mids of the segment, sorted
instrument   one of the 18 classes, or null when none or several apply
subset       translation, retrieval or classification
split        train, valid or test; null for a reserve, which takes the split of the
             video that it stands in for
role         `wanted`, or `reserve`
rank         place, from 0, among the rows of the same subset and role (in the
             classification subset: of the same class too). Reserves are called up in
             this order.
moment_s     seconds into the video at which the second of sound starts
frame_s      seconds into the video of the frame, within that same second
===========  ==========================================================================

Rows stand in the order subset (classification, retrieval, translation), role, class, rank.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import atomic_path
from anymodal.data.clips import SPLITS, SUBSETS
from anymodal.ontology.instruments import INSTRUMENTS, of_labels

ROLES = ("wanted", "reserve")
WINDOW_S = 1.0
"""Length of the sound taken from a video, seconds (paper, section 3.1)."""

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
        pa.field("moment_s", pa.float64(), nullable=False),
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
    """What was drawn, and how it came about."""

    table: pd.DataFrame
    """See the module's text."""
    account: pd.DataFrame
    """Columns `ACCOUNT_COLUMNS`: a row for every subset and class, beside rows for `instrument`
    `other` (none or several classes apply) and `all` (the whole subset). `wanted` is null where
    nothing is asked for. `available` is what was there when the subset's turn came. Subset
    `unused` has what no subset took; per instrument, `taken` and `reserve` of all subsets sum to
    `available` of the classification subset, which is drawn first."""
    counts: dict[str, int] = field(default_factory=dict)
    """From the lists to the videos drawn from: `segments`, those `qualified` by their labels, those
    of them `long_enough`, and their `videos`."""


def validate_plan(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with its columns in order, or raise `AnymodalError`."""
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise AnymodalError(f"plan lacks the column(s) {', '.join(missing)}")
    table = table.loc[:, list(COLUMNS)]
    for column in (each.name for each in SCHEMA if not each.nullable):
        _refuse(table, table[column].isna(), f"has no {column}")
    _refuse(table, table["video_id"].duplicated(), "stands twice in the plan")
    for column, allowed in (("subset", SUBSETS), ("role", ROLES)):
        unknown = ~table[column].isin(allowed)
        _refuse(table, unknown, f"has a {column} other than {', '.join(allowed)}")
    wanted = table["role"] == "wanted"
    _refuse(table, wanted & ~table["split"].isin(SPLITS), f"has no split of {', '.join(SPLITS)}")
    _refuse(table, ~wanted & table["split"].notna(), "is a reserve and has a split")
    unknown = table["instrument"].notna() & ~table["instrument"].isin(INSTRUMENTS)
    _refuse(table, unknown, "has an unknown instrument")
    classified = table["subset"] == "classification"
    _refuse(table, classified & table["instrument"].isna(), "is to be classified and has no class")
    _refuse(table, ~_agrees(table), "has labels that say another instrument")
    start, end = table["start_s"], table["end_s"]
    window, frame = table["moment_s"], table["frame_s"]
    outside = (window < start - _SLACK_S) | (window + WINDOW_S > end + _SLACK_S) | (start < 0)
    _refuse(table, outside, "has a moment outside its segment")
    outside = (frame < window - _SLACK_S) | (frame > window + WINDOW_S + _SLACK_S)
    _refuse(table, outside, "has a frame outside its second of sound")
    of_class = table["instrument"].where(classified, "")
    expected = table.groupby([table["subset"], of_class, table["role"]])["rank"]
    ordered = expected.rank(method="first") - 1
    _refuse(table, table["rank"] != ordered, "has a rank that is doubled or leaves a gap")
    return table


def write_plan(path: str | Path, plan: Plan) -> None:
    """Validate a plan and write it as parquet; account and counts stand in the file's metadata."""
    table = pa.Table.from_pandas(
        validate_plan(plan.table), schema=SCHEMA, preserve_index=False
    ).replace_schema_metadata(
        {
            _METADATA: json.dumps(
                {
                    "account": json.loads(plan.account.to_json(orient="records")),
                    "counts": plan.counts,
                }
            )
        }
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_plan(path: str | Path) -> Plan:
    """Read and validate a plan; `labels` come as lists, missing strings as None."""
    path = Path(path)
    if not path.is_file():
        raise AnymodalError(f"no plan at {path}; select from AudioSet's segment lists first")
    try:
        content = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise AnymodalError(f"{path} is not a readable parquet file ({error})") from error
    try:
        told = json.loads((content.schema.metadata or {})[_METADATA])
        account = pd.DataFrame(told["account"], columns=list(ACCOUNT_COLUMNS))
        counts = {str(name): int(count) for name, count in told["counts"].items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise AnymodalError(f"{path} is no plan: it has no account of its selection") from error
    return Plan(validate_plan(tidy_table(content.to_pandas())), tidy_account(account), counts)


def tidy_table(table: pd.DataFrame) -> pd.DataFrame:
    """A plan's columns as they are promised: strings or None, labels as lists."""
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


def _agrees(table: pd.DataFrame) -> np.ndarray:
    """Whether `instrument` is what the labels say (None for none or several)."""
    known: dict[tuple[str, ...], str | None] = {}
    agrees = np.ones(len(table), dtype=bool)
    for row, (labels, instrument) in enumerate(
        zip(table["labels"], table["instrument"], strict=True)
    ):
        key = tuple(labels)
        if key not in known:
            known[key] = of_labels(key)
        agrees[row] = known[key] == (None if pd.isna(instrument) else instrument)
    return agrees


def _refuse(table: pd.DataFrame, bad: pd.Series | np.ndarray, what: str) -> None:
    bad = np.asarray(bad)
    if bad.any():
        first = table["video_id"].to_numpy()[bad][0]
        raise AnymodalError(f"video {first!r} ({int(bad.sum())} row(s) in all) {what}")
