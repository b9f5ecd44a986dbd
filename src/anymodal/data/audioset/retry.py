"""The attempts to fetch one clip; runs in a worker thread."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import tenacity

from anymodal.config.params import AudioSetParams
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.data.audioset.downloader import Downloader
from anymodal.data.audioset.excerpt import Excerpt, excerpt
from anymodal.data.audioset.queue import PlannedClip
from anymodal.data.audioset.status import FetchError

_LAST_FRAME_S = 0.999


@dataclass(frozen=True)
class Result:
    """A fetched clip, or the error of the last attempt."""

    row: PlannedClip
    attempts: int
    clip: Excerpt | None = None
    error: FetchError | None = None


class Gate:
    """Where all workers wait while the server wants a pause, until `stop` is set."""

    def __init__(self) -> None:
        self.stop = threading.Event()
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


def fetch_clip(
    row: PlannedClip, downloader: Downloader, scratch: Path, params: AudioSetParams, gate: Gate
) -> Result:
    """Fetch a clip, with pauses between attempts; never raises `FetchError`."""

    def attempt() -> Excerpt:
        gate.wait()
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            path = downloader.fetch(row.video_id, row.window_s, WINDOW_SECONDS, folder)
            return excerpt(
                path,
                min(max(row.frame_s - row.window_s, 0.0), _LAST_FRAME_S),
                jpeg_quality=params.jpeg_quality,
                short_side=params.short_side,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def pause(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, FetchError)
        seconds = pause_s(state.attempt_number, error, params)
        if error.throttled:
            gate.close_for(seconds)
        elif gate.stop.wait(seconds):
            raise error

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, FetchError) and e.again),
        stop=tenacity.stop_after_attempt(params.tries if downloader.remote else 1),
        before_sleep=pause,
        reraise=True,
    )
    clip, error = None, None
    try:
        clip = retrying(attempt)
    except FetchError as failure:
        error = failure
    return Result(row, retrying.statistics["attempt_number"], clip, error)


def pause_s(attempt: int, error: FetchError, params: AudioSetParams) -> float:
    """Seconds to wait after the `attempt`-th attempt: doubled each time, spread at random.

    A pause that the server asks for is kept, up to the longest one.
    """
    base = params.throttle_s if error.throttled else params.backoff_s
    spread = base * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)
    return min(params.backoff_max_s, max(spread, error.after_s or 0.0))
