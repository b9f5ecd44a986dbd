"""A pool of decoder processes: bytes in, windows or a one-line error out.

Each process has its own socket, so that one killed in the middle of a message affects no other; a
new one takes its place.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, Field, PositiveInt, TypeAdapter

from anymodal.core.errors import AnymodalError
from anymodal.media.decoding import Kind
from anymodal.media.segmentation import SegmentedItem, Window
from anymodal.serve.decoder import UndecodableError
from anymodal.serve.limits import MIB, ServeLimits

T = TypeVar("T")
SEGMENT = "anymodal.media.segmentation:segment"
START_S = 60.0
"""Seconds that a decoder may take to start."""
_MAX_HEADER = 1 << 20
# credentials and the like in the server's environment are kept from decoders
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT", "TZ")


class DecoderError(AnymodalError):
    """There is no decoder; not the client's fault."""


class DecoderPool:
    """Decodes files in processes that cannot harm the server; thread-safe.

    The processes import `decode`, `module:function` from (bytes, sample rate, limits) to
    `SegmentedItem`. `on_kill` is called with the reason whenever one is lost: `time`, `memory` or
    `crash`. A thread that finds all of them busy waits.
    """

    def __init__(
        self,
        sample_rate: int,
        limits: ServeLimits,
        decode: str = SEGMENT,
        on_kill: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._limits = limits
        self._on_kill = on_kill
        settings = {"decode": decode, "sample_rate": sample_rate, **limits.model_dump()}
        self._all = [_Decoder(json.dumps(settings)) for _ in range(limits.decoders)]
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        self._closed = False

    def start(self) -> None:
        """Start all decoders; `DecoderError` where one does not start."""
        try:
            with ThreadPoolExecutor(len(self._all)) as threads:
                list(threads.map(_Decoder.start, self._all))
        except BaseException:
            self.close()
            raise
        for decoder in self._all:
            self._idle.put(decoder)

    def close(self) -> None:
        """End all decoders at once."""
        self._closed = True
        for decoder in self._all:
            decoder.kill()

    @property
    def alive(self) -> int:
        """Decoder processes that run."""
        return sum(decoder.runs() for decoder in self._all)

    def decode(self, content: bytes, item: str) -> SegmentedItem:
        """Return the windows of a file called `item`.

        Raises `UndecodableError` where it is no media, damaged, or above a limit, and
        `DecoderError` where there is no decoder.
        """
        decoder, limits = self._idle.get(), self._limits
        try:
            if not self._closed:
                if not decoder.runs():
                    decoder.start()
                return decoder.ask(content, item, limits.decode_s, limits.decoded_bytes)
        except UndecodableError as error:
            messages = {
                "time": f"takes more than {limits.decode_s:g} s to decode; send less of it",
                "memory": f"takes more than {limits.decoder_bytes / MIB:,.0f} MiB to decode",
                "crash": f"crashes its decoder ({error})",
            }
            if error.reason not in messages:
                raise
            if not self._closed:
                # after a lack of memory, what is left may be fragmented
                self._on_kill(error.reason)
                decoder.start()
                raise UndecodableError(error.reason, messages[error.reason]) from None
        finally:
            self._idle.put(decoder)
        raise DecoderError("the server is being stopped")


class _Decoder:
    """One decoder process, used by one thread at a time."""

    def __init__(self, settings: str) -> None:
        self._command = [sys.executable, "-P", "-m", "anymodal.serve.decoder", settings]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a process, in place of the one before; `DecoderError` where it does not start."""
        self.kill()
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # every thread, and every memory pool of one, takes address space
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        try:
            self._connection, theirs = multiprocessing.Pipe()
            with theirs:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    # keeps Ctrl-C from it
                    start_new_session=True,
                    env=environment,
                )
            self._within(START_S, lambda: self._connection.recv_bytes(99))
        except OSError as error:
            raise DecoderError(f"no decoder can be started: {error}") from error
        except UndecodableError as error:
            why = "ends at once" if error.reason == "crash" else f"takes over {START_S:.0f} s"
            raise DecoderError(
                f"starting a decoder process {why}; `{sys.executable} -m anymodal.serve.decoder` "
                "must start within --decoder-memory-mb"
            ) from error

    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def ask(self, content: bytes, item: str, seconds: float, max_bytes: int) -> SegmentedItem:
        """Return its answer; `UndecodableError` where there is none."""

        def answer() -> SegmentedItem:
            self._connection.send_bytes(content)
            return receive(self._connection, item, max_bytes)

        return self._within(seconds, answer)

    def _within(self, seconds: float, work: Callable[[], T]) -> T:
        process, began = self._process, time.monotonic()
        assert process is not None
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            return work()
        except (EOFError, OSError, ValueError) as error:
            late = time.monotonic() - began >= seconds
            process.kill()
            code = process.wait()
            name = signal.Signals(-code).name if code < 0 else f"status {code}"
            reason = "time" if late or code == -signal.SIGXCPU else "crash"
            raise UndecodableError(reason, name) from error
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


_Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _WindowHeader(BaseModel):
    start_s: _Length
    seconds: _Length
    samples: PositiveInt | None
    pixels: tuple[PositiveInt, PositiveInt] | None


class _ItemHeader(BaseModel):
    kind: Kind
    seconds: _Length
    windows: list[_WindowHeader] = Field(min_length=1)


class _FailureHeader(BaseModel):
    failure: str
    message: str


_HEADER: TypeAdapter[_ItemHeader | _FailureHeader] = TypeAdapter(_ItemHeader | _FailureHeader)


def receive(connection: Connection, item: str, max_bytes: int) -> SegmentedItem:
    """Receive what `decoder.send` sent, as an item of that name, or raise what was sent.

    The sender is not trusted: `EOFError`, `OSError` or `ValueError` for anything else, or more.
    """
    left = max_bytes

    def array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        nonlocal left
        size = math.prod(shape) * np.dtype(dtype).itemsize
        left -= size
        if left < 0:
            raise ValueError(f"more than {max_bytes} bytes")
        return np.frombuffer(connection.recv_bytes(size), dtype).reshape(shape)

    header = _HEADER.validate_json(connection.recv_bytes(_MAX_HEADER))
    if isinstance(header, _FailureHeader):
        raise UndecodableError(header.failure, header.message)
    windows = []
    for window in header.windows:
        audio = array((window.samples,), "<f4") if window.samples else None
        image = array((*window.pixels, 3), "u1") if window.pixels else None
        if audio is image is None:
            raise ValueError("a window without audio and image")
        windows.append(Window(window.start_s, window.seconds, audio, image))
    return SegmentedItem(item, header.kind, header.seconds, tuple(windows))
