"""A good table passes all checks; each fault is found by its check, which names the rows.

An evaluation takes seconds, so one table holds many faults.
"""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from anymodal.config.params import CheckParams
from anymodal.core.errors import AnymodalError
from anymodal.data import division
from anymodal.data.checks import CheckReport, CheckResult, run_checks
from anymodal.data.checks.derive import class_counts, derive
from anymodal.data.clips import COLUMNS
from anymodal.data.quality import COLUMNS as MEASURES

PARTS = sorted(division.PARTS, reverse=True)
PARAMS = CheckParams()


def good_table(pairing: str = "class", per_cell: int = 4) -> pd.DataFrame:
    rows = []
    for subset, split in PARTS:
        for name in ("banjo", "flute"):
            for kind in ("audio", "image") if pairing == "class" else ("both",):
                for _ in range(per_cell):
                    number = len(rows)
                    rows.append(
                        {
                            "clip_id": clip_id(number),
                            "audio": None if kind == "image" else f"a{number}.wav",
                            "image": None if kind == "audio" else f"i{number}.jpg",
                            "start_s": 0.5,
                            "labels": ["/m/018j2", "/t/dd00003"] if name == "banjo" else [],
                            "instrument": name,
                            "source": "here",
                            "group": f"g{number}",
                            "pairing": pairing,
                            "subset": subset,
                            "split": split,
                        }
                    )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def fetched_table() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A good clip-paired table of members of shards, and its measures."""
    table = good_table("clip")
    shards = [f"shards/audioset-{number % 2:06d}.tar" for number in range(len(table))]
    for column, suffix in (("audio", "flac"), ("image", "jpg")):
        names = zip(shards, table["clip_id"], strict=True)
        table[column] = [f"{shard}!{clip}.{suffix}" for shard, clip in names]
    measures = {"rms_dbfs": -20.0, "peak_dbfs": -3.0, "contrast": 40.0, "short_side": 256.0}
    quality = table[["clip_id"]].assign(
        **measures, unreadable=None, video_id=table["group"], offset_s=0.999, damage=None
    )
    return table, quality[list(MEASURES)]


def clip_id(number: int) -> str:
    return f"{number:016x}"


def failed(report: CheckReport) -> set[str]:
    return {result.name for result in report.results if not result.success}


def by_name(report: CheckReport, name: str) -> CheckResult:
    return next(result for result in report.results if result.name == name)


def test_a_class_paired_table_passes():
    report = run_checks(good_table(), CheckParams(min_per_class=4))
    assert failed(report) == set() and report.ok and not report.warnings
    report.raise_if_failed()
    names = [result.name for result in report.results]
    assert {"balance:test:audio", "minimum:valid:image", "skew:audio", "partners"} <= {*names}
    assert not {"same_second", "measured", "silent"} & {*names}
    flute = next(row for row in report.counts if row["instrument"] == "flute")
    assert flute["media"] == "audio" and flute["classification/test"] == 4


WRONG_VALUES = [
    ("clip_id", None, {"not_null:clip_id"}),
    ("labels", None, {"not_null:labels", "types"}),
    ("source", None, {"not_null:source"}),
    ("group", None, {"not_null:group"}),
    ("subset", None, {"not_null:subset"}),
    ("split", np.nan, {"not_null:split"}),
    ("subset", "training", {"values:subset", "partners"}),
    ("split", "dev", {"values:split", "partners"}),
    ("pairing", "label", {"values:pairing"}),
    ("start_s", -0.1, {"types"}),
    ("start_s", float("inf"), {"types"}),
    ("start_s", "soon", {"types"}),
    ("audio", 3, {"types"}),
    ("image", "x.jpg", {"media"}),
    ("audio", None, {"media"}),
    ("labels", "/m/018j2", {"types", "not_null:labels"}),
    ("labels", [1], {"types", "not_null:labels"}),
    ("labels", ["Banjo"], {"labels"}),
    ("labels", ["/m/018j2", "piano"], {"labels"}),
    ("instrument", None, {"instrument"}),
    ("instrument", "harp", {"partners"}),
]


def test_every_wrong_value_is_found_by_its_check():
    table = good_table(per_cell=10).astype(object)
    expected: dict[str, set[str]] = {}
    recordings = table.index[table["audio"].notna()]
    for row, (column, value, names) in zip(recordings, WRONG_VALUES, strict=False):
        table.at[row, column] = value
        for name in names:
            expected.setdefault(name, set()).add(str(table.at[row, "clip_id"]))
    report = run_checks(table, PARAMS)
    assert {name: set(by_name(report, name).unexpected) for name in expected} == expected
    assert {"splits", "one_pairing"} <= failed(report)
    for name, clips in expected.items():
        message = by_name(report, name).message
        assert "\n" not in message and any(clip in message for clip in clips)
    with pytest.raises(AnymodalError, match=r"^check not_null:clip_id failed: .* more failed\)$"):
        report.raise_if_failed()
    assert "subset='training'" in by_name(report, "values:subset").message


def test_what_must_not_be_shared():
    last = 95  # in classification/test
    table = good_table()
    for column, row, source in (("clip_id", 0, 1), ("group", 2, last), ("audio", 3, 80)):
        table.loc[row, column] = table.loc[source, column]
    table.loc[7, "pairing"] = "clip"
    report = run_checks(table, PARAMS)
    rows = {"clip_id_unique": (1, 1), "groups_disjoint": (2, last), "files_disjoint": (3, 80)}
    unexpected = {name: tuple(map(clip_id, numbers)) for name, numbers in rows.items()}
    assert failed(report) == {*unexpected, "one_pairing"}
    assert {name: by_name(report, name).unexpected for name in unexpected} == unexpected


@pytest.mark.slow
def test_faults_of_clip_pairs_and_their_media():
    table, quality = fetched_table()
    table.loc[table.index[table["subset"] == "translation"][::3], "instrument"] = None
    report = run_checks(table, PARAMS, quality=quality)
    assert failed(report) == set()
    assert {"balance:test:both", "skew:both"} <= {result.name for result in report.results}
    table.loc[0, "image"] = table.loc[2, "image"]
    table.loc[1, "audio"] = table.loc[1, "audio"].replace("000001", "000000")
    table.loc[8, "image"] = None
    table.loc[47, "instrument"] = None  # of classification
    for row, column, value in (
        (3, "video_id", "another"),
        (4, "offset_s", 1.2),
        (5, "offset_s", -0.1),
        (6, "damage", "its files are not those noted"),
        (10, "rms_dbfs", -60.1),
        (11, "contrast", 1.9),
        (12, "short_side", 255.0),
        (13, "unreadable", "damaged"),
        (14, ["rms_dbfs", "contrast", "short_side"], None),
    ):
        quality.loc[row, column] = value
    report = run_checks(table, PARAMS, quality=quality.drop(9).sample(frac=1, random_state=0))
    rows = {
        "same_second": [0, 1, 3, 4, 5, 6],
        "media": [8],
        "instrument": [47],
        "measured": [9],
        "silent": [10],
        "blank": [11],
        "tiny": [12],
        "readable": [13],
    }
    balance = {"balance:test:both"}
    assert failed(report) - {"files_disjoint"} == {*rows} | balance
    for name, numbers in rows.items():
        assert by_name(report, name).unexpected == tuple(map(clip_id, numbers))
    assert {warning.name for warning in report.warnings} == {"silent", "blank", "tiny", "readable"}
    assert "rms_dbfs=-60.1" in by_name(report, "silent").message
    strict = CheckParams(silence_dbfs=-10, blank_contrast=41, frame_side=257)
    table, quality = fetched_table()
    assert failed(run_checks(table, strict, quality=quality)) == {"silent", "blank", "tiny"}


def without(table: pd.DataFrame, subset: str, split: str, drop: int) -> pd.DataFrame:
    """Drop recordings of flutes."""
    part = (table["subset"] == subset) & (table["split"] == split)
    flutes = part & (table["instrument"] == "flute") & table["audio"].notna()
    return table.drop(index=table.index[flutes][:drop])


def test_class_counts_against_a_loop():
    table = without(good_table(per_cell=5), "classification", "valid", 2)
    table = without(without(table, "translation", "train", 3), "classification", "test", 5)
    counts = class_counts(derive(table)).set_index(["part", "media", "instrument"])
    assert len(counts) == 4 * 2 * 2
    for (part, media, name), line in counts.iterrows():
        size = {
            kind: sum(
                part in (f"{row.subset}/{row.split}", row.subset)
                and row.instrument == kind
                and isinstance(getattr(row, media), str)
                for row in table.itertuples()
            )
            for kind in ("banjo", "flute")
        }
        assert line["rows"] == size[name]
        mean = sum(size.values()) / 2
        assert line["departure"] == pytest.approx(abs(size[name] - mean) / mean)
        assert line["ratio"] == (max(size.values()) / size[name] if size[name] else np.inf)


@pytest.mark.slow
def test_balance_minimum_and_skew():
    table = without(good_table(per_cell=10), "classification", "valid", 2)
    table = without(without(table, "translation", "train", 9), "translation", "valid", 6)
    # 10 and 8 rows: both a ninth from their mean; 20 and 5 recordings for translation
    report = run_checks(table, CheckParams(balance_tolerance=0.1, skew_warning=3))
    assert failed(report) == {"balance:valid:audio", "skew:audio"}
    assert [warning.name for warning in report.warnings] == ["skew:audio"]
    message = by_name(report, "balance:valid:audio").message
    assert "departure=0.111, rows=8" in message and "flute" in message
    vanished = without(table, "classification", "test", 10)
    params = CheckParams(balance_tolerance=5, min_per_class=9)
    report = run_checks(vanished, params)
    assert failed(report) == {"minimum:valid:audio", "minimum:test:audio", "partners"}
    assert by_name(report, "minimum:test:audio").unexpected == ("flute",)
    assert "flute (rows=0)" in by_name(report, "minimum:test:audio").message


def test_wrong_columns_and_no_rows_stop_the_checks():
    table = good_table()
    report = run_checks(table.drop(columns="group").assign(extra=1), PARAMS)
    assert failed(report) == {"columns"} and len(report.results) == 2
    message = by_name(report, "columns").message
    assert "group" in message and "extra" in message
    assert failed(run_checks(table[:0], PARAMS)) == {"rows"}
    undrawn = good_table(per_cell=1).assign(subset=None, split=None)
    names = failed(run_checks(undrawn, PARAMS))
    assert {"not_null:subset", "not_null:split", "splits", "minimum:train:audio"} <= names


@pytest.mark.slow
def test_json_and_page(tmp_path):
    table = good_table(per_cell=1)
    table.loc[0, "group"] = table.loc[23, "group"] = "<script>alert(1)</script>"
    table.loc[table["instrument"] == "flute", "instrument"] = "flute & <drum>"
    report = run_checks(table, CheckParams(min_per_class=2), tmp_path / "deep" / "checks")
    assert CheckReport.read(tmp_path / "deep/checks/checks.json", "check") == report
    assert not report.ok and len(report.errors) == 7
    page = (tmp_path / "deep/checks/checks.html").read_text("utf-8")
    assert "groups_disjoint" in page and "flute &amp; &lt;drum&gt;" in page
    assert "<script" not in page and not re.search(r"(src|href)\s*=", page)
    assert not re.search(r"https?://|@import|url\(", page)
    run_checks(table, CheckParams(min_per_class=2), tmp_path / "again")
    for name in ("checks.json", "checks.html"):
        content = (tmp_path / "deep/checks" / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes()


@pytest.mark.slow
def test_quiet_and_imported_only_when_used(tmp_path):
    code = """
import sys
import anymodal.data.checks
assert "great_expectations" not in sys.modules
sys.path.insert(0, sys.argv[1])
from test_suite import PARAMS, run_checks, good_table
run_checks(good_table(), PARAMS)
import os
assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
"""
    here = __file__.rsplit("/", 1)[0]
    run = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, here],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "" and "%|" not in run.stderr
    assert list(tmp_path.iterdir()) == []
