"""The program of a decoder process: bytes of a file in, its moments out.

    python -P -m anymodal.serve.decoder '{"sample_rate": 16000, ...}'

Media come from strangers, and the libraries that decode them are large and written in C. So they
run in a process of their own that has given up, before the first byte, what it could do harm with:

* it can open nothing, neither file nor socket (RLIMIT_NOFILE at what is open already), nor write
  to a file (RLIMIT_FSIZE);
* its memory (RLIMIT_AS) and, for each file, its processor time (RLIMIT_CPU) are bounded, and the
  server kills it when its time by the clock is over;
* what it sends is no pickle (`anymodal.serve.wire`).

It imports neither torch nor anything that serves, so that it starts in half a second.
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
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media import decoding, segmentation
from anymodal.serve.wire import decoded_size, read_content, write_failure, write_moments

READY = "ready"
MEMORY, FOREIGN, DAMAGED, LARGE, BUG = "memory", "foreign", "damaged", "large", "bug"
"""Reasons: too little memory; no media; media that cannot be decoded; decoded, but too large; an
error that the decoders should have told."""

Decode = Callable[[bytes, int, segmentation.Limits], segmentation.SegmentedItem]
_CODECS = ("ascii", "latin-1", "cp1252", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
_UNUSED = ("av.__main__", "av.datasets")


def segment(
    content: bytes, sample_rate: int, limits: segmentation.Limits
) -> segmentation.SegmentedItem:
    """`anymodal.media.segmentation.segment`, as the pool calls it unless told otherwise."""
    return segmentation.segment(content, sample_rate, limits)


def main(settings: dict[str, Any]) -> None:
    """Decode what comes in until there is no more."""
    # Ctrl-C in a terminal reaches the whole group of processes; the server decides when this ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tasks, results = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    decode = _named(settings["decode"])
    limits = segmentation.Limits(windows=settings["windows"], max_seconds=settings["media_s"])
    _warm_up(settings["sample_rate"], limits)
    _confine(settings["decoder_bytes"])
    write_failure(results, READY, "")
    while (content := read_content(tasks)) is not None:
        _allow_processor_time(settings["decode_s"])
        outcome = _attempt(decode, content, settings["sample_rate"], limits)
        del content
        # whoever is stopped while writing leaves half a message
        _allow_processor_time(None)
        if (
            isinstance(outcome, segmentation.SegmentedItem)
            and decoded_size(outcome) > settings["decoded_bytes"]
        ):
            outcome = LARGE, f"it takes {decoded_size(outcome):,} bytes once decoded"
        if isinstance(outcome, segmentation.SegmentedItem):
            write_moments(results, outcome)
        else:
            write_failure(results, *outcome)


def _attempt(
    decode: Decode, content: bytes, sample_rate: int, limits: segmentation.Limits
) -> segmentation.SegmentedItem | tuple[str, str]:
    try:
        return decode(content, sample_rate, limits)
    except AnymodalError as error:
        # the libraries' readers take a want of memory for damage, and say so
        if _for_want_of_memory(error):
            return MEMORY, ""
        message = " ".join(str(error).split())
        for name in ("<bytes>: ", f"{len(content)} bytes of media: "):
            message = message.removeprefix(name)
        return (DAMAGED if _is_media(content) else FOREIGN), message
    except MemoryError:
        return MEMORY, ""
    except Exception as error:
        return BUG, type(error).__name__


def _for_want_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_media(content: bytes) -> bool:
    try:
        decoding.sniff(content)
    except (MediaError, MemoryError):
        return False
    return True


def _named(name: str) -> Decode:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


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
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(800), 8000, format="WAV")
    segmentation.segment(sound.getvalue(), sample_rate, limits)
    for name in ("PNG", "JPEG"):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, format=name)
        segmentation.segment(picture.getvalue(), sample_rate, limits)
    with contextlib.suppress(MediaError):
        segmentation.segment(b"neither", sample_rate, limits)


def _confine(memory: int) -> None:
    """Give up what decoding does not need, for good."""
    # whatever a library prints must not get among the results, nor fill a log
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, memory),
        # it was the lowest free number: all below it are taken, so nothing can be opened
        (resource.RLIMIT_NOFILE, nothing),
    ):
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            # macOS knows no limit of address space
            if sys.platform == "linux":
                raise


def _allow_processor_time(seconds: float | None) -> None:
    """Bound what one file may use; None: no bound."""
    if seconds is None:
        soft = resource.RLIM_INFINITY
    else:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
