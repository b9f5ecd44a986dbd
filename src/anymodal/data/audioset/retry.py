"""One clip, tried until it is had or there is no point in trying: runs in a worker thread."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anymodal.config.params import AudioSetParams
from anymodal.data.audioset.downloader import Downloader
from anymodal.data.audioset.excerpt import SECONDS, Excerpt, excerpt
from anymodal.data.audioset.queue import Wanted
from anymodal.data.audioset.status import FetchError

_LAST_FRAME_S = 0.999


@dataclass(frozen=True)
class Result:
    """What came of one clip."""

    row: Wanted
    attempts: int
    clip: Excerpt | None = None
    error: FetchError | None = None


class Gate:
    """Where all workers wait while the other side wants a pause."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        """Set when the run ends early: nobody waits any longer."""
        self._lock = threading.Lock()
        self._opens = 0.0

    def close_for(self, seconds: float) -> None:
        """Let nobody through for so long."""
        with self._lock:
            self._opens = max(self._opens, time.monotonic() + seconds)

    def wait(self) -> None:
        """Wait until it is open."""
        while (left := self._opens - time.monotonic()) > 0 and not self.stop.wait(left):
            pass


def try_clip(
    row: Wanted,
    downloader: Downloader,
    scratch: Path,
    params: AudioSetParams,
    gate: Gate,
    seed: int,
) -> Result:
    """Fetch a clip, with pauses between tries; never raises `FetchError`."""
    chance = np.random.default_rng([seed, zlib.crc32(row.key.encode())])
    tries = params.tries if downloader.remote else 1
    for attempt in range(1, tries + 1):
        gate.wait()
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            path = downloader.fetch(row.video_id, row.moment_s, SECONDS, folder)
            clip = excerpt(
                path,
                min(max(row.frame_s - row.moment_s, 0.0), _LAST_FRAME_S),
                jpeg_quality=params.jpeg_quality,
                short_side=params.short_side,
            )
            return Result(row, attempt, clip)
        except FetchError as error:
            failure = error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if not failure.again or attempt == tries:
            break
        pause = pause_s(attempt, failure, params, chance)
        if failure.throttled:
            gate.close_for(pause)
        else:
            gate.stop.wait(pause)
        if gate.stop.is_set():
            break
    return Result(row, attempt, error=failure)


def pause_s(
    attempt: int, error: FetchError, params: AudioSetParams, chance: np.random.Generator
) -> float:
    """Seconds to wait after the `attempt`-th try.

    They double with each try and are spread over a factor of 0.5 to 1.5, so that clips that
    failed together do not come back together. The other side's own wish is kept to, up to the
    longest pause.
    """
    base = params.throttle_s if error.throttled else params.backoff_s
    spread = base * 2.0 ** (attempt - 1) * float(chance.uniform(0.5, 1.5))
    return min(params.backoff_max_s, max(spread, error.after_s or 0.0))
