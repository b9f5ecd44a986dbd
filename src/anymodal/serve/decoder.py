"""The program of a decoder process: bytes of a file in, its windows out.

    python -P -m anymodal.serve.decoder '{"sample_rate": 16000, ...}'

Its standard input is a socket to the server. Before the first file it gives up, for good, what an
attacker who takes over a decoding library could use: it can open neither files nor sockets
(RLIMIT_NOFILE) nor write to a file (RLIMIT_FSIZE); its memory (RLIMIT_AS) and its processor time
per file (RLIMIT_CPU) are bounded. Its answers are JSON and raw arrays: nothing is pickled. It
imports neither torch nor the server, so that it starts in half a second.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import json
import math
import os
import pkgutil
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media import decoding, segmentation

Decode = Callable[[bytes, int, segmentation.Limits], segmentation.SegmentedItem]
_CODECS = ("ascii", "latin-1", "cp1252", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
_UNUSED = ("av.__main__", "av.datasets")


class UndecodableError(MediaError):
    """A file that cannot be decoded within the limits, in one line.

    `reason` is `foreign` (no media), `damaged`, `large`, `memory` or `bug`; where the decoder is
    lost, `time` or `crash`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def main(settings: dict[str, Any]) -> None:
    """Decode files until the server closes the socket."""
    # Ctrl-C in a terminal reaches the whole process group; the server decides when this ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Connection(0)
    module, _, function = settings["decode"].partition(":")
    decode = getattr(importlib.import_module(module), function)
    limits = segmentation.Limits(windows=settings["windows"], max_seconds=settings["media_s"])
    _warm_up(settings["sample_rate"], limits)
    _confine(settings["decoder_bytes"])
    server.send_bytes(b"ready")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            content = server.recv_bytes()
            _limit_processor_time(settings["decode_s"])
            outcome = _decoded(decode, content, settings["sample_rate"], limits)
            # a process that is stopped while it sends would leave half a message
            _limit_processor_time(None)
            del content
            if isinstance(outcome, segmentation.SegmentedItem):
                size, allowed = decoded_size(outcome), settings["decoded_bytes"]
                if size > allowed:
                    message = f"takes {size:,} bytes once decoded; {allowed:,} are allowed"
                    outcome = UndecodableError("large", message)
            send(server, outcome)
            del outcome


def send(connection: Connection, item: segmentation.SegmentedItem | UndecodableError) -> None:
    """Send an item as a JSON header and one message for each array, or a failure as JSON."""
    if isinstance(item, UndecodableError):
        failure = {"failure": item.reason, "message": str(item)[:2000]}
        connection.send_bytes(json.dumps(failure).encode())
        return
    windows = []
    for window in item.windows:
        samples = None if window.audio is None else len(window.audio)
        pixels = None if window.image is None else window.image.shape[:2]
        times = {"start_s": window.start_s, "seconds": window.seconds}
        windows.append({**times, "samples": samples, "pixels": pixels})
    header = {"kind": item.kind, "seconds": item.seconds, "windows": windows}
    connection.send_bytes(json.dumps(header).encode())
    for window in item.windows:
        for part, dtype in ((window.audio, "<f4"), (window.image, "u1")):
            if part is not None:
                connection.send_bytes(np.ascontiguousarray(part, dtype).data.cast("B"))


def decoded_size(item: segmentation.SegmentedItem) -> int:
    """Bytes of an item's samples and pixels."""
    parts = (part for window in item.windows for part in (window.audio, window.image))
    return sum(part.nbytes for part in parts if part is not None)


def _decoded(
    decode: Decode, content: bytes, sample_rate: int, limits: segmentation.Limits
) -> segmentation.SegmentedItem | UndecodableError:
    try:
        return decode(content, sample_rate, limits)
    except Exception as error:
        # the libraries report a lack of memory as damage
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return UndecodableError("memory", "")
            cause = cause.__cause__ or cause.__context__
        if not isinstance(error, AnymodalError):
            return UndecodableError("bug", f"cannot be decoded ({type(error).__name__})")
        message = " ".join(str(error).split())
    for name in ("<bytes>: ", f"{len(content)} bytes of media: "):
        message = message.removeprefix(name)
    try:
        decoding.sniff(content)
    except (MediaError, MemoryError):
        return UndecodableError("foreign", message)
    return UndecodableError("damaged", message)


def _warm_up(sample_rate: int, limits: segmentation.Limits) -> None:
    """Load what is loaded on first use, while files can still be opened."""
    Image.init()
    # PyAV imports what a stream needs when it meets one
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.startswith(_UNUSED):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in _CODECS:
        codecs.lookup(name)
    audio = io.BytesIO()
    soundfile.write(audio, np.zeros(800), 8000, format="WAV")
    samples = [audio.getvalue(), b"no media"]
    for name in ("PNG", "JPEG"):
        image = io.BytesIO()
        Image.new("RGB", (8, 8)).save(image, format=name)
        samples.append(image.getvalue())
    for content in samples:
        with contextlib.suppress(MediaError):
            segmentation.segment(content, sample_rate, limits)


def _confine(memory: int) -> None:
    """Give up what decoding does not need, for good."""
    # what libraries print must not fill the server's log
    lowest_free = os.open(os.devnull, os.O_RDWR)
    os.dup2(lowest_free, 2)
    os.close(lowest_free)
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, memory),
        # all numbers below it are taken, so nothing can be opened
        (resource.RLIMIT_NOFILE, lowest_free),
    ):
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            # macOS has no limit of address space
            if sys.platform == "linux":
                raise


def _limit_processor_time(seconds: float | None) -> None:
    """Bound the processor time from now on; None: no bound."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = hard
    if seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
