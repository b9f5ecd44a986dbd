"""Decoders that misbehave, for the pool to import by name."""

import ctypes
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np

from anymodal.core.errors import MediaError
from anymodal.media import segmentation
from anymodal.media.segmentation import segment


def by_order(content, sample_rate, limits):
    """Does what the content says; anything else is decoded."""
    order = content.decode("latin-1")
    if order == "hang":
        time.sleep(60)
    if order == "spin":
        while True:
            pass
    if order == "eat":
        return np.ones(1 << 30)
    if order == "crash":
        ctypes.string_at(0)
    if order == "leave":
        os._exit(7)
    if order == "bug":
        raise ZeroDivisionError
    if order == "babble":
        os.write(1, b"x" * 1000)
        os.write(2, b"x" * 1000)
        print("more", file=sys.stderr)
    if order == "environment":
        raise MediaError(",".join(sorted(os.environ)))
    if order.startswith("open "):
        raise MediaError(_outcome(lambda: Path(order[5:]).read_bytes()))
    if order == "connect":
        raise MediaError(_outcome(lambda: socket.create_connection(("127.0.0.1", 9))))
    if order in ("babble", "plain"):
        picture = np.full((4, 4, 3), 255, np.uint8)
        return segmentation.segment(picture, sample_rate, limits)
    return segment(content, sample_rate, limits)


def _outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__ + " " + (error.strerror or "")
    return "done"
