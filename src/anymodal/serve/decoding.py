"""A pool of decoder processes: bytes in, moments or one clear line out.

Each process has pipes of its own, so that one that is killed in the middle of a message spoils
nobody else's; a new one takes its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from anymodal.core.errors import AnymodalError, MediaError
from anymodal.media.segmentation import SegmentedItem
from anymodal.serve import decoder
from anymodal.serve.limits import MIB, ServeLimits
from anymodal.serve.wire import WireError, read_answer, write_content

SEGMENT = "anymodal.serve.decoder:segment"
START_S = 60.0
"""A decoder that is not ready by then never will be."""
# nothing else of the server's environment, such as credentials, is a decoder's business
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT", "TZ")


class UndecodableError(MediaError):
    """What a client sent cannot be decoded here, in one line."""

    def __init__(self, message: str, foreign: bool = False) -> None:
        super().__init__(message)
        self.foreign = foreign
        """It is no sound, picture or film at all."""


class DecoderError(AnymodalError):
    """No decoder can be had; not the client's fault."""


class DecoderPool:
    """Decodes files in processes that cannot harm the server.

    Parameters
    ----------
    sample_rate: Hz of the sound of the moments.
    limits: what one file may cost.
    decode: `module:function` that takes (bytes, sample rate, `items.Limits`) and gives
    `SegmentedItem`;
        the decoder processes import it.
    on_kill: told the reason whenever a decoder was lost: `time`, `memory` or `crash`.

    May be used from several threads; one that finds all decoders at work waits.
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
        self._settings = {
            "decode": decode,
            "sample_rate": sample_rate,
            "windows": limits.windows,
            "media_s": limits.media_s,
            "decode_s": limits.decode_s,
            "decoder_bytes": limits.decoder_bytes,
            "decoded_bytes": limits.decoded_bytes,
        }
        self._all = [_Decoder(self._settings) for _ in range(limits.decoders)]
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        self._closed = False

    def start(self) -> None:
        """Start all decoders; `DecoderError` where one cannot work."""
        try:
            for one in self._all:
                one.start()
            for one in self._all:
                one.wait_until_ready()
        except BaseException:
            self.close()
            raise
        for one in self._all:
            self._idle.put(one)

    def close(self) -> None:
        """End all decoders, whatever they are at."""
        self._closed = True
        for one in self._all:
            one.kill()

    @property
    def alive(self) -> int:
        """Decoder processes that run."""
        return sum(one.runs() for one in self._all)

    def decode(self, content: bytes, item: str) -> SegmentedItem:
        """The moments of a file, which they call `item`.

        Raises `UndecodableError` where it is no media, damaged, or costs more than is allowed, and
        `DecoderError` where no decoder can be had.
        """
        one = self._idle.get()
        try:
            return self._decode(one, content, item)
        finally:
            self._idle.put(one)

    def _decode(self, one: _Decoder, content: bytes, item: str) -> SegmentedItem:
        limits = self._limits
        if self._closed:
            raise DecoderError("the server is being stopped")
        one.wait_until_ready()
        try:
            answer = one.ask(content, item, limits.decode_s, limits.decoded_bytes)
        except _LostError as lost:
            if self._closed:
                raise DecoderError("the server is being stopped") from lost
            self._replace(one, lost.reason)
            if lost.reason == "time":
                raise UndecodableError(
                    f"takes more than {limits.decode_s:g} s to decode; send less of it"
                ) from lost
            raise UndecodableError(f"crashes its decoder ({lost})") from lost
        if isinstance(answer, SegmentedItem):
            return answer
        reason, message = answer
        if reason == decoder.MEMORY:
            # what is left of its memory may be in pieces
            self._replace(one, "memory")
            raise UndecodableError(
                f"needs more than {limits.decoder_bytes / MIB:,.0f} MiB of memory to decode"
            )
        if reason == decoder.FOREIGN:
            raise UndecodableError(message, foreign=True)
        if reason == decoder.LARGE:
            raise UndecodableError(f"{message}; {limits.decoded_bytes:,} are allowed")
        if reason == decoder.BUG:
            raise UndecodableError(f"cannot be decoded ({message})")
        raise UndecodableError(message)

    def _replace(self, one: _Decoder, reason: str) -> None:
        self._on_kill(reason)
        one.kill()
        if not self._closed:
            one.start()


class _LostError(Exception):
    """A decoder is gone; `reason` is `time` or `crash`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


class _Decoder:
    """One decoder process, used by one thread at a time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def start(self) -> None:
        """Start the process, without waiting for it."""
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "anymodal.serve.decoder"),
                    json.dumps(self._settings),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C is for the server to hear
                start_new_session=True,
                env=environment
                | {
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    # every thread, and every pool of memory of one, takes address space
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "MALLOC_ARENA_MAX": "2",
                },
            )
        except OSError as error:
            raise DecoderError(f"no decoder can be started: {error}") from error
        self._ready = False

    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Until it can be asked; one that has gone in the meantime is started again."""
        if not self.runs():
            self.kill()
            self.start()
        if self._ready:
            return
        process = self._process
        assert process is not None and process.stdout is not None
        with _deadline(process, START_S) as expired:
            try:
                answer = read_answer(process.stdout, "", 0)
            except WireError as error:
                self.kill()
                why = f"is not ready after {START_S:.0f} s" if expired.is_set() else "ends at once"
                raise DecoderError(
                    f"a decoder process {why}; `{sys.executable} -m anymodal.serve.decoder` must "
                    "start, in the memory that decoders are given"
                ) from error
        self._ready = not isinstance(answer, SegmentedItem) and answer[0] == decoder.READY
        if not self._ready:
            raise DecoderError("a decoder process does not say that it is ready")

    def ask(
        self, content: bytes, item: str, seconds: float, max_bytes: int
    ) -> SegmentedItem | tuple[str, str]:
        """Its answer; `_LostError` where there is none."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        with _deadline(process, seconds) as expired:
            try:
                write_content(process.stdin, content)
                answer = read_answer(process.stdout, item, max_bytes)
            except (WireError, OSError, ValueError) as error:
                process.kill()
                code = process.wait()
                if expired.is_set() or code == -signal.SIGXCPU:
                    raise _LostError("time") from error
                name = signal.Signals(-code).name if code < 0 else f"status {code}"
                raise _LostError("crash", name) from error
        return answer

    def kill(self) -> None:
        """End the process and let go of its pipes."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            # what was not sent cannot be any more
            with contextlib.suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr]


class _deadline:
    """Kills a process that is not done in time, and says whether it did."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._expired = threading.Event()
        self._process = process
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def _expire(self) -> None:
        self._expired.set()
        self._process.kill()

    def __enter__(self) -> threading.Event:
        self._timer.start()
        return self._expired

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
