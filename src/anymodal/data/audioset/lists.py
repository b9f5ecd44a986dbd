"""The segment lists that AudioSet is published as.

Source: https://research.google.com/audioset/download.html. Comments that start with `#`, then rows
`YTID, start_seconds, end_seconds, "mid,mid"`; blanks around a field do not matter, and a single
label needs no quotes. One regular expression reads whole blocks of rows; those that it refuses go
through `parse_row`, which defines a row and says what is wrong. Files are filtered block by block,
so that memory follows what is kept.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from anymodal.core.errors import AnymodalError
from anymodal.ontology.graph import ontology

FILES = ("unbalanced_train_segments.csv", "balanced_train_segments.csv", "eval_segments.csv")
"""Names of the published lists."""
SITE = "https://research.google.com/audioset/download.html"

_BLOCK = 4 << 20
"""Bytes read at a time."""
_LISTED_PER_KIND = 20
_BLANKS = " \t\r\n\f\v"
_ID = "[A-Za-z0-9_-]{11}"
_SECONDS = r"[0-9]{1,9}(?:\.[0-9]*)?"
_ROW = (
    rf"^{{0}}(?P<video_id>{_ID}){{0}},{{0}}(?P<start_s>{_SECONDS}){{0}},"
    rf'{{0}}(?P<end_s>{_SECONDS}){{0}},{{0}}(?P<labels>"[^"]*"|[^",]*?){{0}}$'
).replace("{0}", f"[{_BLANKS}]*")


class Fault(Exception):
    """Why a row is refused: the kind of fault, and the details."""


@dataclass
class Problems:
    """What was left out of the lists: how often each kind, and the first few of each."""

    counts: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)
    """`file:line: kind: detail`."""

    def add(self, place: str, kind: str, detail: str) -> None:
        """Count a problem, and list it if it is among the first of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= _LISTED_PER_KIND:
            self.listed.append(f"{place}: {kind}: {detail}")

    def summary(self) -> str:
        """One line: how many of each kind, and the first one."""
        if not self.listed:
            return "no problems"
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in self.counts.most_common())
        return f"{self.counts.total():,} row(s) skipped: {kinds}; the first: {self.listed[0]}"


@dataclass(frozen=True)
class SegmentList:
    """Segments, what could not be read of their lists, and the number of readable rows."""

    table: pd.DataFrame
    """Columns video_id; start_s and end_s, seconds into the video; labels, a categorical whose
    categories are mids joined by commas, each once, sorted. Segments are unique."""
    problems: Problems
    read: int


def published_lists(folder: str | Path) -> list[Path]:
    """Return the published lists (plain or .gz) in `folder`; none is an `AnymodalError`."""
    folder = Path(folder)
    names = [name + suffix for name in FILES for suffix in ("", ".gz")]
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise AnymodalError(
            f"no segment lists in {folder}; put {', '.join(FILES)} there, from {SITE}"
        )
    return files


def read_segments(
    paths: str | Path | Iterable[str | Path], keep_mids: Collection[str] | None = None
) -> SegmentList:
    """Read segment lists; rows that cannot be read are skipped and reported with file and line.

    keep_mids: only segments that have one of these labels are kept; None keeps all. A segment
    (video, start and end) that occurs several times among them is kept once, with all its labels.
    Raises `AnymodalError` where a file is missing or breaks off, or no row is readable.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise AnymodalError("no segment list given")
    problems, labels = Problems(), dict[str, str | None]()
    parts, read = [], 0

    @cache
    def is_kept(joined: str) -> bool:
        return keep_mids is None or not frozenset(keep_mids).isdisjoint(joined.split(","))

    for number, path in enumerate(files):
        readable = 0
        for first_line, lines in _blocks(path):
            rows = read_rows(lines, labels)
            readable += len(rows)
            refused = np.ones(len(lines), dtype=bool)
            refused[rows["line"]] = False
            for place in np.flatnonzero(refused):
                text = lines[place].as_py()
                if text.strip():
                    try:
                        parse_row(text, ontology())
                    except Fault as fault:
                        problems.add(f"{path.name}:{first_line + place}", *fault.args)
            codes, names = pd.factorize(rows["labels"])
            kept = rows[np.array([is_kept(name) for name in names], dtype=bool)[codes]]
            parts.append(kept.assign(file=number, line=kept["line"] + first_line))
        if not readable:
            problems.add(path.name, "no row", "nothing in this file can be read")
        read += readable
    if not read:
        raise AnymodalError(
            f"no readable segment in {', '.join(map(str, files))}; rows look like "
            f'-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j" ({problems.summary()})'
        )
    table = pd.concat(parts, ignore_index=True)
    table = _without_repeats(table, [path.name for path in files], problems)
    table["labels"] = pd.Categorical(table["labels"])
    return SegmentList(table.drop(columns=["file", "line"]), problems, read)


def parse_row(line: str, known: Container[str]) -> tuple[str, float, float, tuple[str, ...]]:
    """Video id, start and end in seconds, and labels (each once, sorted), or `Fault`."""
    fields = line.split(",", 3)
    if len(fields) < 4:
        raise Fault("not four fields", f"{len(fields)} in {_quoted(line)}")
    identifier = fields[0].strip(_BLANKS)
    if not re.fullmatch(_ID, identifier):
        hint = "; a spreadsheet program has damaged it" if identifier.startswith("#NAME") else ""
        raise Fault("bad video id", f"{_quoted(identifier)}{hint}")
    start, end = _seconds(fields[1]), _seconds(fields[2])
    if start is None or end is None:
        text = fields[1] if start is None else fields[2]
        raise Fault("bad time", f"{_quoted(text)} is not a number of seconds")
    if end <= start:
        raise Fault("ends before it starts", f"{start:g} to {end:g} s")
    return identifier, start, end, _parse_labels(fields[3], known)


def _parse_labels(text: str, known: Container[str]) -> tuple[str, ...]:
    text = text.strip(_BLANKS)
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    inner = text[1:-1] if quoted else text
    if '"' in inner or ("," in inner and not quoted):
        raise Fault("not four fields", f"labels must be in one pair of quotes: {_quoted(text)}")
    labels = [each.strip(_BLANKS) for each in inner.split(",")]
    if not all(labels):
        raise Fault("no label", f"an empty label in {_quoted(text)}")
    if unknown := [label for label in labels if label not in known]:
        raise Fault("unknown label", f"{_quoted(unknown[0])} is not a class of the ontology")
    return tuple(sorted(set(labels)))


def read_rows(lines: pa.StringArray, labels: dict[str, str | None]) -> pd.DataFrame:
    """Rows of `lines` that `parse_row` accepts: video_id, start_s, end_s, labels (joined) and line.

    labels: what each different text of the last field says, kept from call to call.
    """
    fields = pc.extract_regex(lines, _ROW)
    place = np.flatnonzero(pc.is_valid(fields).to_numpy(zero_copy_only=False))
    fields = fields.drop_null()
    start, end = (
        pc.struct_field(fields, name).cast(pa.float64()).to_numpy() for name in ("start_s", "end_s")
    )
    encoded = pc.struct_field(fields, "labels").dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    for text in texts:
        if text not in labels:
            labels[text] = _joined(text)
    mids = np.array([labels[text] for text in texts], dtype=object)
    table = pd.DataFrame(
        {
            "video_id": pc.struct_field(fields, "video_id").to_pandas(),
            "start_s": start,
            "end_s": end,
            "labels": pd.Series(mids[encoded.indices.to_numpy()], dtype=object),
            "line": place,
        }
    )
    return table[(end > start) & table["labels"].notna()]


def _joined(text: str) -> str | None:
    try:
        return ",".join(_parse_labels(text, ontology()))
    except Fault:
        return None


def _blocks(path: Path) -> Iterator[tuple[int, pa.StringArray]]:
    """Lines of a file without its leading comments, in blocks, and the number of each first one."""
    if not path.is_file():
        raise AnymodalError(f"no segment list at {path}; the lists are published at {SITE}")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        line, in_head = 1, True
        with gzip.open(path) if packed else path.open("rb") as file:
            while content := file.read(_BLOCK) + file.readline():
                text = content.decode("utf-8", errors="replace").removesuffix("\n")
                lines = pc.split_pattern(pa.array([text.removeprefix("\ufeff")]), "\n").flatten()
                texts = (each.as_py() for each in lines)
                skipped = len(list(takewhile(_is_comment, texts))) if in_head else 0
                in_head = skipped == len(lines)
                yield line + skipped, lines.slice(skipped)
                line += len(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise AnymodalError(
            f"{path} cannot be read to its end ({error}); download it again"
        ) from error


def _is_comment(line: str) -> bool:
    """Whether a line at the start of a file is a comment or blank.

    `#NAME?` with a time in the second field is a row that a spreadsheet program has damaged.
    """
    fields = line.split(",", 2)
    is_row = len(fields) > 1 and _seconds(fields[1]) is not None
    return not line.strip() or (line.lstrip().startswith("#") and not is_row)


def _without_repeats(table: pd.DataFrame, files: list[str], problems: Problems) -> pd.DataFrame:
    """Every segment once, with the labels of all its rows, in the place of its first."""
    segment = ["video_id", "start_s", "end_s"]
    repeated = table[table.duplicated(segment, keep=False)]
    for rows in repeated.groupby(segment, sort=False).indices.values():
        first, *later = (repeated.iloc[row] for row in rows)
        mids = {mid for each in (first, *later) for mid in each["labels"].split(",")}
        table.loc[first.name, "labels"] = ",".join(sorted(mids))
        for each in later:
            original = f"{files[first['file']]}:{first['line']}"
            detail = f"{each['video_id']} from {each['start_s']:g} s, as in {original}"
            problems.add(f"{files[each['file']]}:{each['line']}", "repeated segment", detail)
    return table[~table.duplicated(segment)].reset_index(drop=True)


def _seconds(text: str) -> float | None:
    """A plain decimal number of seconds; None for anything else."""
    text = text.strip(_BLANKS)
    return float(text) if re.fullmatch(_SECONDS, text) else None


def _quoted(text: str) -> str:
    text = text.strip(_BLANKS)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
