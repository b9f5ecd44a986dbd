"""Items taken apart, as bytes between a decoder and the server.

A message is the length of a JSON header (4 bytes, little-endian), the header, and the samples and
pixels that it announces, in its order. Nothing is pickled: a decoder that hostile media have taken
over can send wrong numbers, and no code.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import SegmentedItem, Window

_LENGTH = struct.Struct("<I")
_CONTENT = struct.Struct("<Q")
MAX_HEADER = 1 << 20
_KINDS = ("audio", "image", "video")


class WireError(AnymodalError):
    """The other side is gone, or says what cannot be."""


def decoded_size(windows: SegmentedItem) -> int:
    """Bytes of samples and pixels."""
    return sum(
        part.nbytes
        for window in windows.windows
        for part in (window.audio, window.image)
        if part is not None
    )


def write_moments(file: IO[bytes], windows: SegmentedItem) -> None:
    """Send an item."""
    _write_header(
        file,
        {
            "kind": windows.kind,
            "seconds": windows.seconds,
            "windows": [
                {
                    "start_s": window.start_s,
                    "seconds": window.seconds,
                    "audio": None if window.audio is None else len(window.audio),
                    "image": None if window.image is None else list(window.image.shape[:2]),
                }
                for window in windows.windows
            ],
        },
    )
    for window in windows.windows:
        if window.audio is not None:
            file.write(np.ascontiguousarray(window.audio, dtype="<f4").data)
        if window.image is not None:
            file.write(np.ascontiguousarray(window.image, dtype=np.uint8).data)
    file.flush()


def write_failure(file: IO[bytes], reason: str, message: str) -> None:
    """Send why an item could not be decoded: what sort of failure, and one line."""
    _write_header(file, {"reason": reason, "message": message[:2000]})
    file.flush()


def read_answer(file: IO[bytes], item: str, max_bytes: int) -> SegmentedItem | tuple[str, str]:
    """Receive an item, called `item`, or (reason, message).

    Raises `WireError` where the sender ends, or announces what cannot be or is more than
    `max_bytes`.
    """
    header = _read_header(file)
    try:
        if "reason" in header:
            return str(header["reason"]), str(header["message"])
        kind, seconds = header["kind"], _seconds(header["seconds"])
        if kind not in _KINDS:
            raise WireError(f"no kind {kind!r}")
        left = max_bytes
        found = []
        for told in header["windows"]:
            audio = image = None
            if told["audio"] is not None:
                audio, left = _read_array(file, (int(told["audio"]),), np.dtype("<f4"), left)
            if told["image"] is not None:
                height, width = told["image"]
                shape = (int(height), int(width), 3)
                image, left = _read_array(file, shape, np.dtype(np.uint8), left)
            if audio is None and image is None:
                raise WireError("a moment of nothing")
            found.append(Window(_seconds(told["start_s"]), _seconds(told["seconds"]), audio, image))
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a header that says nothing ({error!r})") from error
    if not found:
        raise WireError("no moment at all")
    return SegmentedItem(item, kind, seconds, tuple(found))


def write_content(file: IO[bytes], content: bytes) -> None:
    """Send the bytes of a file to decode."""
    file.write(_CONTENT.pack(len(content)))
    file.write(content)
    file.flush()


def read_content(file: IO[bytes]) -> bytes | None:
    """Receive the bytes of a file to decode; None where there are no more."""
    head = file.read(_CONTENT.size)
    if len(head) < _CONTENT.size:
        return None
    size = _CONTENT.unpack(head)[0]
    content = file.read(size)
    return content if len(content) == size else None


def _write_header(file: IO[bytes], header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    file.write(_LENGTH.pack(len(text)) + text)


def _read_header(file: IO[bytes]) -> dict[str, Any]:
    size = _LENGTH.unpack(_exactly(file.read, _LENGTH.size))[0]
    if size > MAX_HEADER:
        raise WireError(f"a header of {size} bytes")
    try:
        header = json.loads(_exactly(file.read, size))
    except (ValueError, RecursionError) as error:
        raise WireError("a header that is not JSON") from error
    if not isinstance(header, dict):
        raise WireError("a header that is no object")
    return header


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    content = read(size)
    if len(content) < size:
        raise WireError("it ended")
    return content


def _read_array(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, left: int
) -> tuple[np.ndarray, int]:
    size = math.prod(shape) * dtype.itemsize
    if min(shape) < 1 or size > left:
        raise WireError(f"an array of shape {shape}")
    array = np.empty(shape, dtype)
    view = array.data.cast("B")
    done = 0
    while done < size:
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise WireError("it ended")
        done += count
    return array, left - size


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise WireError(f"{seconds} seconds")
    return seconds
