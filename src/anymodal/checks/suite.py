"""The suite: what is expected of a clip table whose subsets are drawn.

==========================  =====================================================================
columns, rows               the contract's columns, all of them and no other; at least one row
not_null:<column>           what the contract says is never null, and subset and split
types                       strings are strings, start_s a number from 0, labels a list of strings
labels                      labels are AudioSet mids
clip_id_unique              no clip twice
values:<column>             subset, split and pairing as the contract names them
splits                      the six splits of the three subsets, each of them there, no other
one_pairing                 one way of pairing in the whole table
groups_disjoint             all rows of a group in one split of one subset
files_disjoint              likewise all rows of a file
media                       `clip`: audio and image; `class`: exactly one of them
instrument                  a class in every row of the classification subset (`class`: everywhere)
partners                    `class`: every class of a split is there in both modalities
balance:<split>:<modality>  classification: no class departs from the mean size beyond tolerance
minimum:<split>:<modality>  classification: no class with fewer rows than asked for
skew:<modality>             translation: largest over smallest class (a warning)
same_moment                 `clip`: sound and picture of a row are cut from the same second
measured                    where media were looked at: all of them were
readable, silent, blank,    and those that cannot be read, are silent, blank or tiny are counted
tiny                        (warnings)
==========================  =====================================================================
"""

from __future__ import annotations

from typing import Any

import pandas as pd

# the engine first: it switches the package's analytics off before it is imported
from anymodal.checks.engine import Rule, Validation, validate  # isort: skip
from great_expectations import expectations as expect

from anymodal.checks.derive import count, derive
from anymodal.checks.expectations import ExpectClassBalance, ExpectClassMinimum, ExpectClassSkew
from anymodal.checks.report import CheckReport
from anymodal.dataset.clips import COLUMNS, PAIRINGS, SCHEMA, SPLITS, SUBSETS
from anymodal.params import CheckParams

PARTS = (
    "translation/train",
    "translation/valid",
    "retrieval/test",
    "classification/train",
    "classification/valid",
    "classification/test",
)
_MIDS = r"^(/[a-z]/[A-Za-z0-9_]+( (?=/)|$))*$"


def check(
    clips: pd.DataFrame, params: CheckParams, quality: pd.DataFrame | None = None
) -> tuple[CheckReport, list[Validation]]:
    """Run the suite; a table without the right columns, or rows, is not looked at further.

    quality: what was measured of the media (`anymodal.dataset.quality`), if there are media. Also
    returns Great Expectations' own results, from which its Data Docs are made.
    """
    shape = [
        Rule(
            "columns",
            expect.ExpectTableColumnsToMatchSet(column_set=list(COLUMNS), exact_match=True),
            f"the columns are {', '.join(COLUMNS)}",
        ),
        Rule("rows", expect.ExpectTableRowCountToBeBetween(min_value=1), "there are rows"),
    ]
    first = validate(clips.reset_index(drop=True), shape)
    if not all(each.success for each in first.results):
        return CheckReport(tuple(first.results)), [first]
    looked = quality is not None and len(quality) > 0
    table = derive(clips, quality)
    rules = _row_rules(table) + _class_rules(table, params)
    then = validate(table, rules + (_media_rules(params) if looked else []))
    return CheckReport((*first.results, *then.results), count(table)), [first, then]


def _media_rules(params: CheckParams) -> list[Rule]:
    """What is expected of media that were looked at; nulls (no such medium) pass."""
    return [
        Rule(
            "measured",
            expect.ExpectColumnValuesToBeInSet(column="measured", value_set=[True]),
            "its media were looked at",
        ),
        Rule(
            "readable",
            expect.ExpectColumnValuesToBeNull(column="unreadable"),
            "its media can be read",
            "warning",
        ),
        Rule(
            "silent",
            expect.ExpectColumnValuesToBeBetween(column="rms_dbfs", min_value=params.silence_dbfs),
            f"its sound is not silent (RMS of {params.silence_dbfs:g} dBFS at least)",
            "warning",
        ),
        Rule(
            "blank",
            expect.ExpectColumnValuesToBeBetween(
                column="contrast", min_value=params.blank_contrast
            ),
            f"its picture is not blank (contrast of {params.blank_contrast:g} at least)",
            "warning",
        ),
        Rule(
            "tiny",
            expect.ExpectColumnValuesToBeBetween(column="short_side", min_value=params.frame_side),
            f"its picture's shorter side has {params.frame_side} pixels at least",
            "warning",
        ),
    ]


def _row_rules(table: pd.DataFrame) -> list[Rule]:
    by_clip = table["pairing"].iloc[0] == "clip"
    required = [field.name for field in SCHEMA if not field.nullable] + ["subset", "split"]
    rules = [
        Rule(f"not_null:{name}", expect.ExpectColumnValuesToNotBeNull(column=name), f"has {name}")
        for name in required
    ]
    rules += [
        Rule(
            f"values:{column}",
            expect.ExpectColumnValuesToBeInSet(column=column, value_set=list(allowed)),
            f"{column} is one of {', '.join(allowed)}",
        )
        for column, allowed in (("subset", SUBSETS), ("split", SPLITS), ("pairing", PAIRINGS))
    ]
    rules += [
        Rule(
            "types",
            expect.ExpectColumnValuesToBeInSet(column="wrong", value_set=[""]),
            "values have the contract's types",
        ),
        Rule(
            "labels",
            expect.ExpectColumnValuesToMatchRegex(column="labels", regex=_MIDS),
            "labels are AudioSet mids",
        ),
        Rule(
            "clip_id_unique",
            expect.ExpectColumnValuesToBeUnique(column="clip_id"),
            "clip_id is unique",
        ),
        Rule(
            "splits",
            expect.ExpectColumnDistinctValuesToEqualSet(column="part", value_set=list(PARTS)),
            f"the splits are {', '.join(PARTS)}, and none is empty",
        ),
        Rule(
            "one_pairing",
            expect.ExpectColumnUniqueValueCountToBeBetween(column="pairing", max_value=1),
            "all rows are paired the same way",
        ),
        Rule(
            "groups_disjoint",
            expect.ExpectColumnValuesToBeBetween(column="group_parts", max_value=1),
            "all rows of a group are in one split of one subset",
        ),
        Rule(
            "files_disjoint",
            expect.ExpectColumnValuesToBeBetween(column="file_parts", max_value=1),
            "all rows of a file are in one split of one subset",
        ),
        Rule(
            "media",
            expect.ExpectColumnValuesToBeInSet(
                column="media", value_set=["both"] if by_clip else ["audio", "image"]
            ),
            "has audio and image" if by_clip else "has either audio or image",
        ),
        Rule(
            "instrument",
            expect.ExpectColumnValuesToNotBeNull(
                column="instrument", **_where('subset == "classification"') if by_clip else {}
            ),
            "has an instrument",
        ),
    ]
    if by_clip:
        rules.append(
            Rule(
                "same_moment",
                expect.ExpectColumnValuesToBeInSet(column="moment", value_set=[""]),
                "sound and picture are of the same second",
            )
        )
    else:
        rules.append(
            Rule(
                "partners",
                expect.ExpectColumnValuesToBeBetween(column="partners", min_value=2),
                "its class has audio and images in the same split",
            )
        )
    return rules


def _class_rules(table: pd.DataFrame, params: CheckParams) -> list[Rule]:
    used = table.loc[table["subset"] == "classification", "instrument"]
    classes = sorted(map(str, used.dropna().unique()))
    modalities = ["both"] if table["pairing"].iloc[0] == "clip" else ["audio", "image"]
    rules = []
    for split in SPLITS:
        for modality in modalities:
            condition = f'part == "classification/{split}" and media == "{modality}"'
            scope: dict[str, Any] = {"column": "instrument", "value_set": classes}
            scope |= _where(condition)
            here = f"of classification/{split}, {modality}"
            rules += [
                Rule(
                    f"balance:{split}:{modality}",
                    ExpectClassBalance(**scope, limit=params.balance_tolerance),
                    f"classes {here} depart from their mean size by {params.balance_tolerance:g} "
                    "of it at most",
                ),
                Rule(
                    f"minimum:{split}:{modality}",
                    ExpectClassMinimum(**scope, limit=params.min_per_class),
                    f"classes {here} have {params.min_per_class} rows at least",
                ),
            ]
    for modality in modalities:
        scope = {"column": "instrument", "value_set": classes}
        scope |= _where(f'subset == "translation" and media == "{modality}"')
        says = (
            f"the largest class of translation, {modality}, has {params.skew_warning:g} times the "
            "rows of the smallest at most"
        )
        skew = ExpectClassSkew(**scope, limit=params.skew_warning)
        rules.append(Rule(f"skew:{modality}", skew, says, "warning"))
    return rules


def _where(condition: str) -> dict[str, Any]:
    return {"row_condition": condition, "condition_parser": "pandas"}
