"""Encoders that other packages announce in their pyproject.toml:

    [project.entry-points."anymodal.encoders"]
    tiny = "tiny_encoders:ENCODERS"

An entry point loads to one `EncoderInfo` or to a list of them. Its module is imported whenever
encoders are listed; that of `EncoderInfo.module`, with the network, when the encoder is built.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from anymodal.core.errors import AnymodalError
from anymodal.encoders.entry import EncoderInfo, checked

GROUP = "anymodal.encoders"
_log = logging.getLogger(__name__)


@cache
def installed(taken: frozenset[str]) -> dict[str, EncoderInfo]:
    """Encoders that installed packages announce, by name; searched once in a process.

    What cannot be loaded, is not an encoder, or has a taken name, is skipped with a warning.
    """
    encoders: dict[str, EncoderInfo] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            announced = point.load()
        # whatever a foreign module raises while it is imported must not affect the others
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split()) or "no reason given"
            _log.warning(
                "encoders of %s are skipped: %s: %s", _origin(point), type(error).__name__, reason
            )
            continue
        for entry in announced if isinstance(announced, (list, tuple)) else [announced]:
            try:
                info = checked(entry)
                if info.name in taken or info.name in encoders:
                    by = "anymodal's own" if info.name in taken else "an earlier entry point"
                    raise AnymodalError(f"the name {info.name!r} is taken by {by}")
            except AnymodalError as error:
                _log.warning("an encoder of %s is skipped: %s", _origin(point), error)
                continue
            encoders[info.name] = info
    return encoders


def _origin(point: EntryPoint) -> str:
    package = f"package {point.dist.name}, " if point.dist else ""
    return f"{package}entry point {point.name} = {point.value}"
