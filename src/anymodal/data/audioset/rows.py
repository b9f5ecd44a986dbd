"""One row of a segment list, and whole blocks of rows at once.

A row is `YTID, start_seconds, end_seconds, "mid,mid"`. Blanks around a field do not matter, and a
single label needs no quotes. `parse_row` is the definition; `RowReader` does the same to a block of
lines with column operations, and leaves to `parse_row` the lines that it refuses, to say why.

The trick is that columns repeat themselves: two million rows have some thousand different times
and some ten thousand different sets of labels. Each different text is interpreted once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anymodal.data.audioset.hashing import ID_LENGTH

FAULTS = (
    "not four fields",
    "bad video id",
    "bad time",
    "ends before it starts",
    "no label",
    "unknown label",
)
"""What can be wrong of a row by itself, in the order in which it is looked for."""

_ID = re.compile(rf"[A-Za-z0-9_-]{{{ID_LENGTH}}}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]*)?")
_ID_BYTES = np.zeros(256, dtype=bool)
_ID_BYTES[[byte for byte in range(256) if _ID.fullmatch(chr(byte) * ID_LENGTH)]] = True

# texts remembered a column; bounds the memory for a list in which nothing repeats
_REMEMBERED = 200_000
_BLANKS = " \t\r\n\f\v"


class Fault(Exception):
    """Why a row is refused: one of `FAULTS`, and the details."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True)
class Block:
    """Rows that could be read of a block of lines."""

    line: np.ndarray
    """Place in the block, from 0, int64 (rows,)."""
    video_id: np.ndarray
    """S11 (rows,)."""
    start_s: np.ndarray
    """float64 (rows,)."""
    end_s: np.ndarray
    """float64 (rows,)."""
    labels: np.ndarray
    """Set of labels, a place in `RowReader.label_sets`, int64 (rows,)."""
    refused: np.ndarray
    """Places of the lines that hold no readable row, int64; blank lines are among them."""


def parse_row(line: str, known: Container[str]) -> tuple[str, float, float, tuple[str, ...]]:
    """Video id, start and end in seconds, and labels (each once, sorted), or `Fault`."""
    fields = line.split(",", 3)
    if len(fields) < 4:
        raise Fault(FAULTS[0], f"{len(fields)} in {_quoted(line)}")
    identifier = fields[0].strip(_BLANKS)
    if not _ID.fullmatch(identifier):
        hint = "; a spreadsheet program has damaged it" if identifier.startswith("#NAME") else ""
        raise Fault(FAULTS[1], f"{_quoted(identifier)}{hint}")
    start, end = parse_seconds(fields[1]), parse_seconds(fields[2])
    for number, text in ((start, fields[1]), (end, fields[2])):
        if number is None:
            raise Fault(FAULTS[2], f"{_quoted(text.strip(_BLANKS))} is no number of seconds")
    assert start is not None and end is not None
    if end <= start:
        raise Fault(FAULTS[3], f"{start:g} to {end:g} s")
    return identifier, start, end, parse_labels(fields[3], known)


def parse_seconds(text: str) -> float | None:
    """A plain decimal number of seconds; None for anything else."""
    text = text.strip(_BLANKS)
    return float(text) if _SECONDS.fullmatch(text) else None


def parse_labels(text: str, known: Container[str]) -> tuple[str, ...]:
    """Labels of the last field, each once, sorted, or `Fault`."""
    text = text.strip(_BLANKS)
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    inner = text[1:-1] if quoted else text
    if '"' in inner or ("," in inner and not quoted):
        raise Fault(FAULTS[0], f"labels must stand in one pair of quotes: {_quoted(text)}")
    labels = [each.strip(_BLANKS) for each in inner.split(",")]
    if not all(labels):
        raise Fault(FAULTS[4], f"an empty label in {_quoted(text)}")
    for label in labels:
        if label not in known:
            raise Fault(FAULTS[5], f"{_quoted(label)} is no class of the ontology")
    return tuple(sorted(set(labels)))


class RowReader:
    """Reads blocks of lines; keeps what it learnt of one block for the next.

    `known`: the mids that are labels.
    """

    def __init__(self, known: Container[str]) -> None:
        self.label_sets: list[tuple[str, ...]] = []
        """Every different set of labels met so far."""
        self._known = known
        self._places: dict[tuple[str, ...], int] = {}
        self._labels = _Column(self._place)
        self._times = _Column(parse_seconds)

    def read(self, lines: pa.StringArray) -> Block:
        """Rows of `lines`, which hold no line ends."""
        fields = pc.split_pattern(lines, ",", max_splits=3)
        place = np.flatnonzero(pc.list_value_length(fields).to_numpy(zero_copy_only=False) == 4)
        if len(place) < len(fields):
            fields = fields.take(pa.array(place))
        identifiers, valid = _video_ids(pc.list_element(fields, 0))
        start = self._times.values(pc.list_element(fields, 1), np.nan)
        end = self._times.values(pc.list_element(fields, 2), np.nan)
        labels = self._labels.values(pc.list_element(fields, 3), -1).astype(np.int64)
        # comparing with NaN, which stands for a time that is no number, is False
        valid &= (end > start) & (labels >= 0)
        refused = np.ones(len(lines), dtype=bool)
        refused[place[valid]] = False
        return Block(
            line=place[valid],
            video_id=identifiers[valid],
            start_s=start[valid],
            end_s=end[valid],
            labels=labels[valid],
            refused=np.flatnonzero(refused),
        )

    def _place(self, text: str) -> int | None:
        try:
            labels = parse_labels(text, self._known)
        except Fault:
            return None
        place = self._places.setdefault(labels, len(self.label_sets))
        if place == len(self.label_sets):
            self.label_sets.append(labels)
        return place


class _Column:
    """Interprets every different text of a column once."""

    def __init__(self, interpret: Callable[[str], float | None]) -> None:
        self._interpret = interpret
        self._seen: dict[str, float | None] = {}

    def values(self, texts: pa.StringArray, missing: float) -> np.ndarray:
        """Meaning of every text, float64 (texts,); `missing` where there is none."""
        encoded = texts.dictionary_encode()
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        meanings = np.empty(len(encoded.dictionary), dtype=np.float64)
        for place, text in enumerate(encoded.dictionary.to_pylist()):
            if text not in self._seen:
                self._seen[text] = self._interpret(text)
            meaning = self._seen[text]
            meanings[place] = missing if meaning is None else meaning
        return meanings[encoded.indices.to_numpy()]


def _video_ids(texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Ids, S11 (rows,), and whether each is one; what is none reads as eleven zeros."""
    texts = pc.ascii_trim(texts, _BLANKS)
    valid = pc.binary_length(texts).to_numpy() == ID_LENGTH
    texts = pc.if_else(pa.array(valid), texts, "0" * ID_LENGTH)
    if not len(texts):
        return np.empty(0, dtype=f"S{ID_LENGTH}"), valid
    # every text is of one width now, so that their characters stand in one regular run
    _, offsets, data = texts.buffers()
    first = np.frombuffer(offsets, np.int32)[texts.offset]
    characters = np.frombuffer(data, np.uint8)[first : first + ID_LENGTH * len(texts)]
    characters = characters.reshape(-1, ID_LENGTH)
    valid &= _ID_BYTES[characters].all(axis=1)
    return np.ascontiguousarray(characters).view(f"S{ID_LENGTH}").reshape(-1), valid


def _quoted(text: str) -> str:
    text = text.strip(_BLANKS)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
