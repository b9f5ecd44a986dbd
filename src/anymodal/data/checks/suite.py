"""The checks of a clip table whose subsets are drawn.

Names with a colon are checked for each column, or for each split and modality. Rules on rows that
apply to one pairing alone are chosen by the table's.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

# the engine first: it switches the package's analytics off before it is imported
from anymodal.data.checks.engine import Rule, validate  # isort: skip
from great_expectations import expectations as expect

from anymodal.config.params import CheckParams
from anymodal.data.checks.derive import class_counts, derive, pivot
from anymodal.data.checks.report import CheckReport
from anymodal.data.clips import COLUMNS, PAIRINGS, SCHEMA, SPLITS, SUBSETS
from anymodal.data.division import PARTS

_PARTS = tuple("/".join(part) for part in PARTS)
_MIDS = r"^(/[a-z]/[A-Za-z0-9_]+( (?=/)|$))*$"
_REQUIRED = (*(field.name for field in SCHEMA if not field.nullable), "subset", "split")


def check(
    clips: pd.DataFrame, params: CheckParams, quality: pd.DataFrame | None = None
) -> CheckReport:
    """Run the checks; a table without the right columns, or rows, is not checked further."""
    columns = expect.ExpectTableColumnsToMatchSet(column_set=list(COLUMNS), exact_match=True)
    shape = [
        Rule("columns", f"the columns are {', '.join(COLUMNS)}", columns),
        Rule("rows", "there are rows", expect.ExpectTableRowCountToBeBetween(min_value=1)),
    ]
    results = validate(clips.reset_index(drop=True), shape, ["clip_id"])
    if not all(result.success for result in results):
        return CheckReport(results=tuple(results))
    has_media = quality is not None and len(quality) > 0
    table = derive(clips, quality)
    rules = _row_rules(table["pairing"].iloc[0] == "clip")
    results += validate(table, rules + (_media_rules(params) if has_media else []), ["clip_id"])
    counts = class_counts(table)
    results += validate(counts, _class_rules(counts, params), ["instrument", "rows"])
    return CheckReport(results=tuple(results), counts=tuple(pivot(table)))


def _row_rules(by_clip: bool) -> list[Rule]:
    rules = [Rule(f"not_null:{name}", f"has {name}", _not_null(name)) for name in _REQUIRED]
    for name, values in (("subset", SUBSETS), ("split", SPLITS), ("pairing", PAIRINGS)):
        says = f"{name} is one of {', '.join(values)}"
        rules.append(Rule(f"values:{name}", says, _in(name, *values)))
    parts = expect.ExpectColumnDistinctValuesToEqualSet(column="part", value_set=list(_PARTS))
    pairings = expect.ExpectColumnUniqueValueCountToBeBetween(column="pairing", max_value=1)
    mids = expect.ExpectColumnValuesToMatchRegex(column="labels", regex=_MIDS)
    unique = expect.ExpectColumnValuesToBeUnique(column="clip_id")
    rules += [
        Rule("types", "values have the contract's types", _in("wrong", "")),
        Rule("labels", "labels are AudioSet mids", mids),
        Rule("clip_id_unique", "clip_id is unique", unique),
        Rule("splits", f"the splits are {', '.join(_PARTS)}, and none is empty", parts),
        Rule("one_pairing", "all rows have the same pairing", pairings),
        Rule("groups_disjoint", "a group is in one split of one subset", _most("group_parts", 1)),
        Rule("files_disjoint", "a file is in one split of one subset", _most("file_parts", 1)),
    ]
    if by_clip:
        classified = _not_null("instrument", **_where('subset == "classification"'))
        rules += [
            Rule("media", "has audio and image", _in("media", "both")),
            Rule("instrument", "has an instrument", classified),
            Rule("same_second", "audio and image are of the same second", _in("mismatch", "")),
        ]
    else:
        says = "its class has audio and images in the same split"
        rules += [
            Rule("media", "has either audio or image", _in("media", "audio", "image")),
            Rule("instrument", "has an instrument", _not_null("instrument")),
            Rule("partners", says, _least("partners", 2)),
        ]
    return rules


def _media_rules(params: CheckParams) -> list[Rule]:
    """Rules for measured media; nulls (rows without that modality) pass."""
    level, contrast, side = params.silence_dbfs, params.blank_contrast, params.frame_side
    readable = expect.ExpectColumnValuesToBeNull(column="unreadable")
    silent = f"its audio is not silent (RMS of {level:g} dBFS at least)"
    blank = f"its image is not blank (contrast of {contrast:g} at least)"
    tiny = f"its image's shorter side has {side} pixels at least"
    return [
        Rule("measured", "its media were measured", _in("measured", True)),
        Rule("readable", "its media can be read", readable, "warning"),
        Rule("silent", silent, _least("rms_dbfs", level), "warning"),
        Rule("blank", blank, _least("contrast", contrast), "warning"),
        Rule("tiny", tiny, _least("short_side", side), "warning"),
    ]


def _class_rules(counts: pd.DataFrame, params: CheckParams) -> list[Rule]:
    tolerance, least, skew = params.balance_tolerance, params.min_per_class, params.skew_warning
    rules = []
    for part, media in counts[["part", "media"]].drop_duplicates().itertuples(index=False):
        scope = _where(f'part == "{part}" and media == "{media}"')
        classes = f"classes of {part}, {media},"
        if part == "translation":
            says = f"no class of {part}, {media}, has over {skew:g} times the rows of another"
            rules.append(Rule(f"skew:{media}", says, _most("ratio", skew, **scope), "warning"))
            continue
        where = f"{part.removeprefix('classification/')}:{media}"
        balanced = f"{classes} depart from their mean size by at most {tolerance:g} of it"
        enough = f"{classes} have at least {least} rows"
        rules += [
            Rule(f"balance:{where}", balanced, _most("departure", tolerance, **scope)),
            Rule(f"minimum:{where}", enough, _least("rows", least, **scope)),
        ]
    return rules


def _not_null(column: str, **scope: Any) -> Any:
    return expect.ExpectColumnValuesToNotBeNull(column=column, **scope)


def _in(column: str, *values: object) -> Any:
    return expect.ExpectColumnValuesToBeInSet(column=column, value_set=list(values))


def _least(column: str, value: float, **scope: Any) -> Any:
    return expect.ExpectColumnValuesToBeBetween(column=column, min_value=value, **scope)


def _most(column: str, value: float, **scope: Any) -> Any:
    return expect.ExpectColumnValuesToBeBetween(column=column, max_value=value, **scope)


def _where(condition: str) -> dict[str, Any]:
    return {"row_condition": condition, "condition_parser": "pandas"}
