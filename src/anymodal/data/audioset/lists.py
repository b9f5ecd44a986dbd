"""The segment lists that AudioSet is published as.

Source: https://research.google.com/audioset/download.html: `unbalanced_train_segments.csv`
(2,041,789 segments), `balanced_train_segments.csv` (22,160) and `eval_segments.csv` (20,371). Three
lines that start with `#`, then rows as `anymodal.data.audioset.rows` tells.

Files are read in blocks and filtered on the way, so that memory follows what is kept and not the
size of the file. Plain and gzipped files, with or without a byte order mark, with Unix or Windows
line ends, are read alike. A row that cannot be read is reported with file and line, and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.hashing import numbers, segment_words
from anymodal.data.audioset.rows import Fault, RowReader, parse_row
from anymodal.data.audioset.textblocks import blocks, comments, lines_of
from anymodal.ontology.graph import ontology

FILES = ("unbalanced_train_segments.csv", "balanced_train_segments.csv", "eval_segments.csv")
"""Names of the published lists."""

DUPLICATE = "repeated segment"
EMPTY = "no row"
"""Kinds of problem beside those of a single row (`rows.FAULTS`)."""


@dataclass(frozen=True)
class Problem:
    """Something of a list that was left out."""

    file: str
    line: int
    """From 1; 0 for the whole file."""
    kind: str
    detail: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.kind}: {self.detail}"


@dataclass
class Problems:
    """What was left out: how often each kind, and the first few of each."""

    listed_per_kind: int = 20
    counts: Counter[str] = field(default_factory=Counter)
    listed: list[Problem] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many there are, listed or not."""
        return self.counts.total()

    def add(self, problem: Problem) -> None:
        """Count `problem`, and list it while there is room for its kind."""
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= self.listed_per_kind:
            self.listed.append(problem)

    def summary(self) -> str:
        """One line: how many of each kind, and the first one."""
        if not self.total:
            return "no problems"
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in self.counts.most_common())
        return f"{self.total:,} row(s) left out: {kinds}; the first: {self.listed[0]}"


@dataclass(frozen=True)
class SegmentList:
    """Segments, and what could not be read of their lists."""

    table: pd.DataFrame
    """Columns video_id; start_s and end_s, seconds into the video; labels, a categorical whose
    categories are mids joined by commas, each once, sorted. A segment stands once."""
    problems: Problems
    read: int
    """Readable rows, those that were filtered out included."""


def published_lists(folder: str | Path) -> list[Path]:
    """Those of the published lists (plain or .gz) that lie in `folder`; none is an error."""
    folder = Path(folder)
    names = [name + ending for name in FILES for ending in ("", ".gz")]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise AnymodalError(
            f"no segment lists in {folder}; put {', '.join(FILES)} there, from "
            "https://research.google.com/audioset/download.html"
        )
    return found


def read_segments(
    paths: str | Path | Iterable[str | Path],
    keep_mids: Collection[str] | None = None,
    *,
    strict: bool = False,
    listed_per_kind: int = 20,
) -> SegmentList:
    """Read segment lists.

    `keep_mids`: only segments that have one of these labels are kept; None keeps all.
    `strict`: the first problem is an `AnymodalError`, instead of a row left out.
    `listed_per_kind`: problems told in full; the others are counted.

    A segment (video, start and end) that stands several times among those kept is kept once, with
    the labels of all its rows; the later ones are reported. `AnymodalError` where a file is missing
    or breaks off, and where there is no readable row in any.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise AnymodalError("no segment list given")
    reading = _Reading(keep_mids, strict, Problems(listed_per_kind))
    for number, path in enumerate(files):
        reading.file(number, path)
    if not reading.read:
        raise AnymodalError(
            f"no readable segment in {', '.join(map(str, files))}; rows look like "
            f'-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j" ({reading.problems.summary()})'
        )
    return reading.result(files)


class _Reading:
    """State of one reading."""

    def __init__(self, keep_mids: Collection[str] | None, strict: bool, problems: Problems) -> None:
        self.problems = problems
        self.read = 0
        self._strict = strict
        self._wanted = None if keep_mids is None else frozenset(keep_mids)
        self._reader = RowReader(ontology())
        self._kept_sets = np.zeros(0, dtype=bool)
        # video id, start, end, label set, file, line
        self._parts: list[tuple[np.ndarray, ...]] = []

    def file(self, number: int, path: Path) -> None:
        line, read, in_head = 1, self.read, True
        for content in blocks(path):
            lines = lines_of(content)
            skipped = comments(lines) if in_head else 0
            in_head = skipped == len(lines)
            self._block(number, path, line + skipped, lines.slice(skipped))
            line += len(lines)
        if self.read == read:
            self._report(Problem(path.name, 0, EMPTY, "nothing of this file can be read"))

    def _block(self, number: int, path: Path, first_line: int, lines: pa.StringArray) -> None:
        block = self._reader.read(lines)
        for place in block.refused:
            text = lines[int(place)].as_py()
            if not text.strip():
                continue
            try:
                parse_row(text, ontology())
            except Fault as fault:
                where = first_line + int(place)
                self._report(Problem(path.name, where, fault.kind, fault.detail))
            else:
                raise RuntimeError(f"the two readings of a row differ: {text!r}")
        self.read += len(block.line)
        kept = self._keep(block.labels)
        self._parts.append(
            (
                block.video_id[kept],
                block.start_s[kept],
                block.end_s[kept],
                block.labels[kept].astype(np.int32),
                np.full(int(kept.sum()), number, dtype=np.int16),
                (first_line + block.line[kept]).astype(np.int32),
            )
        )

    def _keep(self, labels: np.ndarray) -> np.ndarray:
        if self._wanted is None:
            return np.ones(len(labels), dtype=bool)
        new = self._reader.label_sets[len(self._kept_sets) :]
        more = [not self._wanted.isdisjoint(each) for each in new]
        self._kept_sets = np.concatenate([self._kept_sets, np.array(more, dtype=bool)])
        return self._kept_sets[labels]

    def _report(self, problem: Problem) -> None:
        self.problems.add(problem)
        if self._strict:
            raise AnymodalError(f"{problem}; mend the list, or read it without `strict`")

    def result(self, files: list[Path]) -> SegmentList:
        columns = [np.concatenate(parts) for parts in zip(*self._parts, strict=True)]
        identifiers, start, end, labels, file, line = columns
        self._parts.clear()
        sets = list(self._reader.label_sets)
        keep = np.ones(len(identifiers), dtype=bool)
        for group in _repeated(identifiers, start, end):
            first, *later = group.tolist()
            keep[later] = False
            sets.append(tuple(sorted({mid for row in group for mid in sets[labels[row]]})))
            labels[first] = len(sets) - 1
            original = f"{files[file[first]].name}:{line[first]}"
            for row in later:
                detail = f"{identifiers[row].decode()} from {start[row]:g} s, as in {original}"
                self._report(Problem(files[file[row]].name, int(line[row]), DUPLICATE, detail))
        table = pd.DataFrame(
            {
                "video_id": _strings(identifiers[keep]),
                "start_s": start[keep],
                "end_s": end[keep],
                "labels": _categorical(labels[keep], sets),
            }
        )
        return SegmentList(table, self.problems, self.read)


def _repeated(identifiers: np.ndarray, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    """Rows of every segment that stands more than once, in the order of the rows."""
    marks = numbers(0, "duplicates", segment_words(identifiers, start, end))
    order = np.argsort(marks, kind="stable")
    equal = marks[order][1:] == marks[order][:-1]
    if not equal.any():
        return []
    suspects = np.sort(order[np.concatenate([equal, [False]]) | np.concatenate([[False], equal])])
    columns = {"id": identifiers[suspects], "start": start[suspects], "end": end[suspects]}
    groups = pd.DataFrame(columns).groupby(["id", "start", "end"], sort=False).indices
    return [suspects[rows] for rows in groups.values() if len(rows) > 1]


def _strings(identifiers: np.ndarray) -> pd.Series:
    return pd.Series(pa.array(identifiers).cast(pa.string()).to_pandas(), dtype="str")


def _categorical(labels: np.ndarray, sets: list[tuple[str, ...]]) -> pd.Categorical:
    """Joined labels of every row; only sets that occur are categories, in alphabetical order."""
    used, codes = np.unique(labels, return_inverse=True)
    names = [",".join(sets[place]) for place in used]
    # a set joined from repeated rows may be there already under another number
    categories, of_used = np.unique(np.array(names, dtype=object), return_inverse=True)
    return pd.Categorical.from_codes(of_used[codes], categories=pd.Index(categories.astype(str)))
