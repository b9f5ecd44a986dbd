"""Every expectation must pass on a sound table, and fail on the table that breaks it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from anymodal.checks import CheckReport, CheckResult, run_checks
from anymodal.dataset.clips import COLUMNS
from anymodal.dataset.quality import COLUMNS as MEASURES
from anymodal.errors import AnymodalError
from anymodal.params import CheckParams

PARTS = (
    ("translation", "train"),
    ("translation", "valid"),
    ("retrieval", "test"),
    ("classification", "train"),
    ("classification", "valid"),
    ("classification", "test"),
)
PARAMS = CheckParams()


def sound_table(pairing: str = "class", per_cell: int = 4) -> pd.DataFrame:
    rows = []
    for subset, split in PARTS:
        for name in ("banjo", "flute"):
            for kind in ("audio", "image") if pairing == "class" else ("both",):
                for _ in range(per_cell):
                    number = len(rows)
                    rows.append(
                        {
                            "clip_id": f"{number:016x}",
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


def failed(report: CheckReport) -> set[str]:
    return {each.name for each in report.results if not each.success}


def by_name(report: CheckReport, name: str) -> CheckResult:
    return next(each for each in report.results if each.name == name)


@pytest.mark.parametrize("pairing", ["class", "clip"])
def test_a_sound_table_passes(pairing):
    report = run_checks(sound_table(pairing), PARAMS)
    assert failed(report) == set()
    assert report.ok and not report.warnings
    report.raise_if_failed()
    names = [each.name for each in report.results]
    assert len(set(names)) == len(names)
    modality = "both" if pairing == "clip" else "audio"
    assert {f"balance:test:{modality}", f"minimum:valid:{modality}", f"skew:{modality}"} <= {*names}


def test_a_clip_row_without_a_class_may_serve_translation_only():
    table = sound_table("clip")
    table.loc[table.index[:16:3], "instrument"] = None
    assert run_checks(table, PARAMS).ok
    row = table.index[table["subset"] == "classification"][0]
    table.loc[row, "instrument"] = None
    assert "instrument" in failed(run_checks(table, PARAMS))


LAST = 95
"""A row of classification/test."""

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


def test_every_wrong_value_is_found_by_its_expectation():
    table = sound_table(per_cell=10).astype(object)
    sounds = table.index[table["audio"].notna()]
    expected: dict[str, set[str]] = {}
    for row, (column, value, names) in zip(sounds, WRONG_VALUES, strict=False):
        table.at[row, column] = value
        for name in names:
            expected.setdefault(name, set()).add(str(table.at[row, "clip_id"]))
    report = run_checks(table, PARAMS)
    assert not report.ok
    found = {name: set(by_name(report, name).unexpected) for name in expected}
    assert found == expected
    # besides, parts that no contract knows are there
    assert "splits" in failed(report)
    for name, clips in expected.items():
        told = by_name(report, name).message
        assert "\n" not in told and any(clip in told for clip in clips)


@pytest.mark.parametrize(
    ("column", "source", "name", "rows"),
    [
        ("clip_id", 1, "clip_id_unique", [1, 1]),
        ("group", LAST, "groups_disjoint", [0, LAST]),
        ("audio", 80, "files_disjoint", [0, 80]),
    ],
)
def test_what_must_not_be_shared(column, source, name, rows):
    table = sound_table()
    table.loc[0, column] = table.loc[source, column]
    report = run_checks(table, PARAMS)
    assert failed(report) == {name}
    assert list(by_name(report, name).unexpected) == [f"{row:016x}" for row in rows]
    with pytest.raises(AnymodalError, match=f"check {name} failed"):
        report.raise_if_failed()


def test_two_ways_of_pairing_do_not_mix():
    table = sound_table()
    table.loc[7, "pairing"] = "clip"
    assert failed(run_checks(table, PARAMS)) == {"one_pairing"}


def test_clip_pairing_wants_both_media():
    table = sound_table("clip")
    table.loc[3, "image"] = None
    result = by_name(run_checks(table, PARAMS), "media")
    assert not result.success and result.unexpected == (f"{3:016x}",)


def without(table: pd.DataFrame, subset: str, split: str, name: str, drop: int) -> pd.DataFrame:
    mine = (table["subset"] == subset) & (table["split"] == split) & (table["instrument"] == name)
    rows = table.index[mine & table["audio"].notna()][:drop]
    return table.drop(index=rows)


def test_balance_judges_every_split_and_modality_by_itself():
    table = without(sound_table(per_cell=10), "classification", "valid", "flute", 2)
    report = run_checks(table, CheckParams(balance_tolerance=0.1))
    # 10 and 8 rows: both a ninth away from their mean
    assert failed(report) == {"balance:valid:audio"}
    result = by_name(report, "balance:valid:audio")
    assert result.observed["figure"] == pytest.approx(1 / 9)
    assert result.observed["counts"] == {"banjo": 10, "flute": 8}
    assert run_checks(table, CheckParams(balance_tolerance=0.12)).ok


def test_a_class_that_vanished_from_a_split_is_noticed():
    table = without(sound_table(), "classification", "test", "flute", 4)
    report = run_checks(table, CheckParams(balance_tolerance=5))
    assert by_name(report, "minimum:test:audio").observed["counts"] == {"banjo": 4, "flute": 0}
    assert "'flute' with 0 row(s)" in by_name(report, "minimum:test:audio").message


def test_minimum():
    table = sound_table(per_cell=4)
    assert run_checks(table, CheckParams(min_per_class=4)).ok
    report = run_checks(table, CheckParams(min_per_class=5))
    assert failed(report) == {
        f"minimum:{split}:{kind}"
        for split in ("train", "valid", "test")
        for kind in ("audio", "image")
    }


def test_skew_is_a_warning():
    table = without(sound_table(per_cell=8), "translation", "train", "flute", 7)
    table = without(table, "translation", "valid", "flute", 5)
    report = run_checks(table, CheckParams(skew_warning=3))
    assert report.ok
    (warning,) = report.warnings
    assert warning.name == "skew:audio" and warning.observed["figure"] == 4.0
    report.raise_if_failed()


def test_an_empty_split_fails():
    table = sound_table()
    table = table[table["split"] != "valid"]
    report = run_checks(table, PARAMS)
    assert {"splits", "balance:valid:audio", "minimum:valid:image"} <= failed(report)
    assert "there are no rows" in by_name(report, "balance:valid:audio").message


def test_no_classification_rows_at_all():
    table = sound_table()
    report = run_checks(table[table["subset"] != "classification"], PARAMS)
    assert {"splits", "balance:train:audio"} <= failed(report)


def test_an_undrawn_table_fails_and_does_not_crash():
    table = sound_table().assign(subset=None, split=None)
    assert {"not_null:subset", "not_null:split", "splits"} <= failed(run_checks(table, PARAMS))


def test_wrong_columns_and_no_rows_stop_the_checks():
    table = sound_table()
    report = run_checks(table.drop(columns="group").assign(extra=1), PARAMS)
    assert failed(report) == {"columns"} and len(report.results) == 2
    message = by_name(report, "columns").message
    assert "group" in message and "extra" in message
    assert failed(run_checks(table[:0], PARAMS)) == {"rows"}


def test_the_error_names_expectation_and_rows_in_one_line():
    table = sound_table()
    table.loc[2, "subset"] = "training"
    with pytest.raises(AnymodalError) as caught:
        run_checks(table, PARAMS).raise_if_failed()
    line = str(caught.value)
    assert "values:subset" in line and "'training'" in line and f"{2:016x}" in line
    assert "\n" not in line


def test_json_and_page(tmp_path):
    table = sound_table()
    table.loc[0, "group"] = table.loc[LAST, "group"] = "<script>alert(1)</script>"
    table.loc[table["instrument"] == "flute", "instrument"] = "flute & <drum>"
    report = run_checks(table, CheckParams(min_per_class=5), tmp_path / "deep" / "checks")
    folder = tmp_path / "deep" / "checks"
    content = json.loads((folder / "checks.json").read_text("utf-8"))
    assert content == json.loads(json.dumps(report.to_dict()))
    assert content["ok"] is False and content["errors"] == len(report.errors) == 7
    flute = next(each for each in content["counts"] if each["instrument"].startswith("flute"))
    assert flute["classification/test"] == 4
    page = (folder / "checks.html").read_text("utf-8")
    assert "groups_disjoint" in page and "flute &amp; &lt;drum&gt;" in page
    assert "<script" not in page and not re.search(r"(src|href)\s*=", page)
    assert not re.search(r"https?://|@import|url\(", page)
    again = run_checks(table, CheckParams(min_per_class=5), tmp_path / "again")
    assert again == report
    for name in ("checks.json", "checks.html"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def fetched_table() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sound clip-paired table of members of shards, and what was measured of them."""
    table = sound_table("clip")
    shards = [f"shards/audioset-{number % 2:06d}.tar" for number in range(len(table))]
    table["audio"] = [f"{a}!{b}.flac" for a, b in zip(shards, table["clip_id"], strict=True)]
    table["image"] = [f"{a}!{b}.jpg" for a, b in zip(shards, table["clip_id"], strict=True)]
    quality = pd.DataFrame(
        {
            "clip_id": table["clip_id"],
            "rms_dbfs": -20.0,
            "peak_dbfs": -3.0,
            "contrast": 40.0,
            "short_side": 256.0,
            "unreadable": None,
            "video_id": table["group"],
            "offset_s": 0.999,
            "damage": None,
        },
        columns=list(MEASURES),
    )
    return table, quality


def test_media_that_were_looked_at_pass():
    table, quality = fetched_table()
    report = run_checks(table, PARAMS, quality=quality)
    assert failed(report) == set()
    names = {each.name for each in report.results}
    assert {"same_moment", "measured", "readable", "silent", "blank", "tiny"} <= names
    # a pack has no media: nothing is said of them
    names = {each.name for each in run_checks(table, PARAMS, quality=quality[:0]).results}
    assert "same_moment" in names and not {"measured", "silent"} & names


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        ("rms_dbfs", -60.1, "silent"),
        ("contrast", 1.9, "blank"),
        ("short_side", 255.0, "tiny"),
        ("unreadable", "torn", "readable"),
    ],
)
def test_poor_media_are_counted_named_and_warned_of(column, value, name):
    table, quality = fetched_table()
    quality.loc[[3, 5], column] = value
    quality.loc[[4], column] = None
    report = run_checks(table, PARAMS, quality=quality.sample(frac=1, random_state=0))
    assert report.ok and failed(report) == {name}
    result = by_name(report, name)
    assert result.observed["unexpected"] == 2 and result.severity == "warning"
    assert result.unexpected == (f"{3:016x}", f"{5:016x}")


def test_thresholds_are_parameters():
    table, quality = fetched_table()
    params = CheckParams(silence_dbfs=-10, blank_contrast=41, frame_side=257)
    assert failed(run_checks(table, params, quality=quality)) == {"silent", "blank", "tiny"}


def test_sound_and_picture_that_are_not_of_the_same_second():
    table, quality = fetched_table()
    table.loc[0, "image"] = table.loc[2, "image"]
    table.loc[1, "audio"] = table.loc[1, "audio"].replace("000001", "000000")
    quality.loc[3, "video_id"] = "another"
    quality.loc[4, "offset_s"] = 1.2
    quality.loc[5, "offset_s"] = -0.1
    quality.loc[6, "damage"] = "its files are not those noted"
    report = run_checks(table, PARAMS, quality=quality)
    assert {"same_moment"} <= failed(report) <= {"same_moment", "files_disjoint"}
    result = by_name(report, "same_moment")
    assert result.severity == "error"
    assert result.unexpected == tuple(f"{row:016x}" for row in range(7) if row != 2)
    with pytest.raises(AnymodalError, match=f"{0:016x}"):
        CheckReport((result,)).raise_if_failed()


def test_a_clip_nobody_looked_at():
    table, quality = fetched_table()
    report = run_checks(table, PARAMS, quality=quality.drop(index=9))
    assert failed(report) == {"measured"}
    assert by_name(report, "measured").unexpected == (f"{9:016x}",)


def test_data_docs_need_no_network_and_tell_no_time(tmp_path):
    table, quality = fetched_table()
    table.loc[0, "group"] = table.loc[40, "group"] = "x"
    quality.loc[0, "rms_dbfs"] = -90
    table.loc[table["instrument"] == "flute", "instrument"] = "<img src=x> & <b>$flute"
    table.loc[30, ["subset", "source"]] = "<i>no subset"
    for name in ("one", "two"):
        run_checks(table, PARAMS, tmp_path / name, quality)
    page = (tmp_path / "one" / "data_docs" / "index.html").read_text("utf-8")
    assert page == (tmp_path / "two" / "data_docs" / "index.html").read_text("utf-8")
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(|onclick|style=", page)
    assert set(re.findall(r'href="(.)', page)) == {"#"}
    assert not re.search(r"20\d\d-\d\d-\d\d|20\d{6}T", page)
    assert not re.search("<(b|i)>", page) and "&lt;img src=x&gt; &amp; &lt;b&gt;$flute" in page
    assert "&lt;i&gt;no subset" in page
    for shown in ("group_parts", "rms_dbfs", "expect_class_balance", "text-danger", "<style>"):
        assert shown in page
    # every section that the contents name is there, and all that is opened is closed
    for target in re.findall(r'href="#([^"]*)"', page):
        assert f'id="{target}"' in page
    assert page.count("<div") == page.count("</div>")
    # a table that is not looked at further has its page as well
    run_checks(table[:0], PARAMS, tmp_path / "empty")
    assert "Must have" in (tmp_path / "empty" / "data_docs" / "index.html").read_text("utf-8")


def test_quiet_and_imported_only_when_used(tmp_path):
    code = """
import sys
import anymodal.checks
assert "great_expectations" not in sys.modules
sys.path.insert(0, sys.argv[1])
from test_checks import PARAMS, run_checks, sound_table
run_checks(sound_table(), PARAMS)
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
