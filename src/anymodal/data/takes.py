"""Recordings that are parts of one take, recognised by their names."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_CHANNEL = re.compile(r"(?:^|(?<=[\s_.\-(\[]))(?:left|right|[lr])(?=$|[\s_.\-)\]])", re.IGNORECASE)
_PIECE = re.compile(r"(?<=[\w)\]])[\s_.\-]*(?:chunk|crop|part|segment)[\s_.\-]*\d+", re.IGNORECASE)
_COPY = re.compile(r"[\s_.\-]+copy(?:[\s_.\-]*\(?\d+\)?)?$", re.IGNORECASE)


def take_of(path: str) -> str:
    """Return the name that the parts of a take share; `path` has forward slashes.

    Parts are the left and right channel (`C4_L_.wav` and `C4_R_.wav`, `.L`, `-left`), numbered cuts
    (`G4-chunk3`, `solo part 2`), copies (`C4 - Copy`), and the same name in another format.
    """
    file = PurePosixPath(path)
    # not `.stem`, which takes the channel of `C4.L` for a file type where there is none
    name = _PIECE.sub("#", _COPY.sub("", file.name.removesuffix(file.suffix)))
    channels = list(_CHANNEL.finditer(name))
    if channels:
        name = f"{name[: channels[-1].start()]}*{name[channels[-1].end() :]}"
    return str(file.with_name(name or file.name))
