"""Segment lists: every way in which a row can be wrong, and in which a file can differ."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset import lists
from anymodal.data.audioset.lists import (
    FILES,
    Fault,
    SegmentList,
    parse_row,
    published_lists,
    read_rows,
    read_segments,
)
from anymodal.ontology.graph import ontology

HEAD = (
    "# Segments csv created Sun Mar  5 10:54:25 2017\n"
    "# num_ytids=3, num_segs=3, num_unique_labels=527, num_positive_labels=5\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
FAULTS = ("not four fields", "bad video id", "bad time", "ends before it starts", "no label",
          "unknown label")  # fmt: skip
GUITAR, BANJO, MUSIC, SPEECH = "/m/0342h", "/m/018j2", "/m/04rlf", "/m/09x0r"
ROWS = (
    f'-0RWZT-miFs, 420.000, 430.000, "{GUITAR},{MUSIC}"\n'
    f'AbCdEfGhIjK, 0.000, 8.500, "{SPEECH}"\n'
    f'_bcdefghij-, 30.000, 40.000, "{MUSIC},{BANJO}"\n'
)
EXPECTED = [
    ("-0RWZT-miFs", 420.0, 430.0, f"{GUITAR},{MUSIC}"),
    ("AbCdEfGhIjK", 0.0, 8.5, SPEECH),
    ("_bcdefghij-", 30.0, 40.0, f"{BANJO},{MUSIC}"),
]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(segments: SegmentList) -> list[tuple[str, float, float, str]]:
    return list(segments.table.astype({"labels": object}).itertuples(index=False, name=None))


def test_reads_the_published_format(tmp_path: Path) -> None:
    segments = read_segments(write(tmp_path / "list.csv", HEAD + ROWS))
    assert values(segments) == EXPECTED
    assert segments.read == 3
    assert segments.problems.summary() == "no problems"
    assert list(segments.table.columns) == ["video_id", "start_s", "end_s", "labels"]
    assert segments.table["start_s"].dtype == np.float64


TEXT = HEAD + ROWS


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        TEXT.rstrip("\n"),
        TEXT.replace("\n", " \t \n"),
        TEXT.replace(", ", ","),
        TEXT + "\n\n  \n",
        HEAD + "\n" + ROWS,
        ROWS,
        TEXT.replace(f'"{SPEECH}"', SPEECH),
        TEXT.replace(f"{GUITAR},", f" {GUITAR} , {GUITAR},"),
        TEXT.replace("420.000", "420").replace("430.000", "430."),
    ],
    ids=[
        *("windows ends", "byte order mark", "no last end", "trailing blanks", "tight"),
        *("blank lines", "blank after head", "no head", "no quotes"),
        *("blanks and repeats in labels", "whole seconds"),
    ],
)
def test_harmless_differences(tmp_path: Path, content: str) -> None:
    segments = read_segments(write(tmp_path / "list.csv", content))
    assert values(segments) == EXPECTED
    assert not segments.problems.counts


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", gzip.compress(("\ufeff" + TEXT).encode()))
    assert values(read_segments(path)) == EXPECTED


MALFORMED = [
    ("AAAAAAAAAAA, 0.000, 10.000", FAULTS[0]),
    ("nothing", FAULTS[0]),
    ("AAAAAAAAAAA, 0.000, 10.000, /m/0342h,/m/04rlf", FAULTS[0]),
    ('AAAAAAAAAAA, 0.000, 10.000, "/m/0342h", "/m/04rlf"', FAULTS[0]),
    ('AAAAAAAAAAA, 0.000, 10.000, "/m/0342h', FAULTS[0]),
    ('AAAAAAAAAA, 0.000, 10.000, "/m/0342h"', FAULTS[1]),
    ('AAAAA+AAAAA, 0.000, 10.000, "/m/0342h"', FAULTS[1]),
    ('AAAAAäAAAAA, 0.000, 10.000, "/m/0342h"', FAULTS[1]),
    ('#NAME?, 0.000, 10.000, "/m/0342h"', FAULTS[1]),
    ("# YTID, start_seconds, end_seconds, positive_labels", FAULTS[1]),
    ('AAAAAAAAAAA, zero, 10.000, "/m/0342h"', FAULTS[2]),
    ('AAAAAAAAAAA, 0.000, , "/m/0342h"', FAULTS[2]),
    ('AAAAAAAAAAA, -5.000, 10.000, "/m/0342h"', FAULTS[2]),
    ('AAAAAAAAAAA, nan, 10.000, "/m/0342h"', FAULTS[2]),
    ('AAAAAAAAAAA, 0.000, 1e3, "/m/0342h"', FAULTS[2]),
    ('AAAAAAAAAAA, 10.000, 10.000, "/m/0342h"', FAULTS[3]),
    ("AAAAAAAAAAA, 0.000, 10.000, ", FAULTS[4]),
    ('AAAAAAAAAAA, 0.000, 10.000, ""', FAULTS[4]),
    ('AAAAAAAAAAA, 0.000, 10.000, "/m/0342h,"', FAULTS[4]),
    ('AAAAAAAAAAA, 0.000, 10.000, "/m/none"', FAULTS[5]),
    ('AAAAAAAAAAA, 0.000, 10.000, "/m/0342h,Guitar"', FAULTS[5]),
]


@pytest.mark.parametrize("block", [1, 64, lists._BLOCK])
def test_malformed_rows_are_reported_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(lists, "_BLOCK", block)
    monkeypatch.setattr(lists, "_LISTED_PER_KIND", 100)
    bad = "".join(f"{row}\n" for row, _ in MALFORMED)
    segments = read_segments(write(tmp_path / "list.csv", f"{HEAD}{ROWS}{bad}"))
    assert values(segments) == EXPECTED
    expected = [f"list.csv:{line}: {kind}: " for line, (_, kind) in enumerate(MALFORMED, start=7)]
    for problem, start in zip(segments.problems.listed, expected, strict=True):
        assert problem.startswith(start)


def test_damaged_first_row_is_no_comment(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", f'{HEAD}#NAME?,30,40,"{GUITAR}"\n{ROWS}')
    segments = read_segments(path)
    assert values(segments) == EXPECTED
    (problem,) = segments.problems.listed
    assert problem.startswith("list.csv:4:") and "spreadsheet" in problem


def test_first_problems_of_each_kind_are_listed_and_all_counted(tmp_path: Path) -> None:
    bad = "".join(f"row {row}\n" for row in range(50)) + "AAAAAAAAAAA, 0, x, y\n"
    problems = read_segments(write(tmp_path / "list.csv", ROWS + bad)).problems
    assert problems.counts == {FAULTS[0]: 50, FAULTS[2]: 1}
    lines = [int(problem.split(":")[1]) for problem in problems.listed]
    assert lines == [*range(4, 24), 54]
    assert "not four fields (50), bad time (1)" in problems.summary()


def test_repeated_segments_are_joined_and_reported(tmp_path: Path) -> None:
    a = write(tmp_path / "a.csv", HEAD + ROWS)
    b = write(
        tmp_path / "b.csv",
        f'{HEAD}-0RWZT-miFs, 420, 430, "{SPEECH},{GUITAR}"\n'
        f'-0RWZT-miFs, 421.000, 431.000, "{GUITAR}"\n'
        f'_bcdefghij-, 30.000, 40.000, "{MUSIC},{BANJO}"\n',
    )
    segments = read_segments([a, b])
    assert values(segments) == [
        ("-0RWZT-miFs", 420.0, 430.0, f"{GUITAR},{MUSIC},{SPEECH}"),
        *EXPECTED[1:],
        ("-0RWZT-miFs", 421.0, 431.0, GUITAR),
    ]
    assert segments.read == 6
    assert segments.problems.counts == {"repeated segment": 2}
    first, second = segments.problems.listed
    assert first.startswith("b.csv:4:") and "a.csv:4" in first
    assert second.startswith("b.csv:6:") and "a.csv:6" in second
    again = read_segments([b, a])
    assert sorted(values(again)) == sorted(values(segments))


def test_filter_keeps_what_has_one_of_the_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", TEXT)
    assert values(read_segments(path, {BANJO, SPEECH})) == EXPECTED[1:]
    assert values(read_segments(path, [GUITAR])) == EXPECTED[:1]
    nothing = read_segments(path, set())
    assert values(nothing) == [] and nothing.read == 3
    assert list(nothing.table.columns) == ["video_id", "start_s", "end_s", "labels"]
    # an unknown label is a fault of the row even where the row would not be kept
    path = write(tmp_path / "bad.csv", f'{TEXT}AAAAAAAAAAA, 0, 10, "/m/none"\n')
    assert read_segments(path, {BANJO}).problems.counts == {FAULTS[5]: 1}


def test_nothing_readable(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.csv", TEXT), write(tmp_path / "bad.csv", HEAD)
    segments = read_segments([bad, good])
    assert values(segments) == EXPECTED and segments.problems.counts == {"no row": 1}
    for name, content in (("empty.csv", ""), ("head.csv", HEAD), ("noise.csv", "index,mid\n1,2\n")):
        with pytest.raises(AnymodalError, match=f"no readable segment in .*{name}"):
            read_segments(write(tmp_path / name, content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AnymodalError, match="no segment list given"):
        read_segments([])
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(AnymodalError, match="no segment list at"):
            read_segments(path)
    packed = gzip.compress((HEAD + ROWS * 500).encode())
    with pytest.raises(AnymodalError, match=r"cut.csv.gz cannot be read to its end"):
        read_segments(write(tmp_path / "cut.csv.gz", packed[: len(packed) // 2]))
    with pytest.raises(AnymodalError, match="cannot be read to its end"):
        read_segments(write(tmp_path / "bad.csv.gz", packed[:60] + b"\0" * 9 + packed[69:]))


def test_published_lists(tmp_path: Path) -> None:
    with pytest.raises(AnymodalError, match="no segment lists in"):
        published_lists(tmp_path)
    write(tmp_path / FILES[2], TEXT)
    write(tmp_path / f"{FILES[0]}.gz", gzip.compress(TEXT.encode()))
    write(tmp_path / "other.csv", TEXT)
    paths = published_lists(tmp_path)
    assert [path.name for path in paths] == [f"{FILES[0]}.gz", FILES[2]]
    assert read_segments(paths).problems.counts == {"repeated segment": 3}


PIECES = st.sampled_from(
    [
        *("AAAAAAAAAAA", "-_-_-_-_-_-", "AAAA", "#", "0", "10.000", " 20.5", "5", "1e3", "-1", "é"),
        *(GUITAR, f'"{MUSIC}"', f'"{MUSIC},{GUITAR}"', "/m/none", '"', '""', "", " ", "\t"),
        *(",", ",", ",", ", ", ", ", "\r"),
    ]
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(PIECES, PIECES, PIECES, PIECES).map(", ".join),
            st.lists(PIECES, max_size=9).map("".join),
            st.text(max_size=30).map(lambda text: text.replace("\n", " ")),
        ),
        max_size=8,
    )
)
def test_columns_agree_with_one_row_at_a_time(lines: list[str]) -> None:
    lines = [line.encode("utf-8", "replace").decode() for line in lines]
    table = read_rows(pa.array(lines, pa.string()), {})
    read = {
        line: (video_id, start, end, tuple(joined.split(",")))
        for video_id, start, end, joined, line in table.itertuples(index=False, name=None)
    }
    for place, line in enumerate(lines):
        try:
            row = parse_row(line, ontology())
        except Fault as fault:
            assert place not in read and fault.args[0] in FAULTS
        else:
            assert read[place] == row
