"""Text files of any size as blocks of lines, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.rows import parse_seconds

_BLOCK = 4 << 20
_LONGEST_LINE = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"


def blocks(path: Path) -> Iterator[bytes]:
    """Whole lines of a file, some megabytes at a time."""
    if not path.is_file():
        raise AnymodalError(
            f"no segment list at {path}; the lists are published at "
            "https://research.google.com/audioset/download.html"
        )
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if packed else raw
            content = file.read(_BLOCK).removeprefix(_BYTE_ORDER_MARK)
            while content:
                cut = content.rfind(b"\n") + 1
                if len(content) - cut > _LONGEST_LINE:
                    raise AnymodalError(f"{path} is no segment list: it has a line of megabytes")
                if cut:
                    yield content[:cut]
                more = file.read(_BLOCK)
                if not more and content[cut:]:
                    yield content[cut:]
                content = content[cut:] + more if more else b""
    except (OSError, EOFError, zlib.error) as error:
        raise AnymodalError(f"{path} cannot be read to its end ({error}); get it again") from error


def lines_of(content: bytes) -> pa.StringArray:
    """Lines of a block, without their ends; what is no UTF-8 becomes the replacement sign."""
    content = content.removesuffix(b"\n")
    try:
        text = pa.array([content], pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        text = pa.array([content.decode("utf-8", errors="replace")])
    return pc.split_pattern(text, "\n").flatten()


def comments(lines: pa.StringArray) -> int:
    """Lines before the first row: comments and blank ones.

    A damaged row may start with `#` as well (spreadsheets write `#NAME?` for an id that starts with
    a minus sign), and is told by its time in the second field.
    """
    for place, line in enumerate(lines):
        text = line.as_py().strip()
        fields = text.split(",", 2)
        if text and not (
            text.startswith("#") and (len(fields) < 2 or parse_seconds(fields[1]) is None)
        ):
            return place
    return len(lines)
