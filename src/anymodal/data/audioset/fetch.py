"""Fetch the clips of a plan: several at a time, resumable, dead ones replaced.

    <out>/shards/audioset-000000.tar …   the clips (`shards`)
    <out>/ledger.jsonl                   the status of every clip that was tried (`ledger`)

Only the calling thread writes. A clip is in its shard before the ledger says `done`: a run killed
at any time loses no more than the clips in flight, and the next one asks for no finished or dead
clip again. Which clips a complete run ends with depends only on the plan and on who is dead.

An unbroken run of temporary failures (`outage` of them) stops the run and does not count against
the clips: the network is down, or the server refuses us.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from anymodal.config.params import AudioSetParams
from anymodal.core.errors import AnymodalError
from anymodal.core.locking import exclusive
from anymodal.data.audioset.downloader import Downloader, LocalDownloader
from anymodal.data.audioset.ledger import NAME, Entry, Ledger
from anymodal.data.audioset.plan import validate_plan
from anymodal.data.audioset.queue import FetchQueue, PlannedClip, rows_of
from anymodal.data.audioset.results import FetchReport, report_of
from anymodal.data.audioset.retry import Gate, Result, fetch_clip
from anymodal.data.audioset.shards import FOLDER, Shards
from anymodal.data.audioset.status import DEAD, Status

_SCRATCH = ".scratch"


def make_downloader(params: AudioSetParams, local: Path | None = None) -> Downloader:
    """YouTube by yt-dlp, or the videos in the folder `local`."""
    if local is not None:
        return LocalDownloader(local, timeout_s=params.timeout_s)
    from anymodal.data.audioset.ytdlp import YtDlpDownloader

    return YtDlpDownloader(timeout_s=params.timeout_s, stall_s=params.stall_s, height=params.height)


def fetch_plan(
    plan: pd.DataFrame,
    downloader: Downloader,
    out: Path,
    params: AudioSetParams,
    progress: Callable[[int, int], None] | None = None,
    stop_after: int | None = None,
) -> FetchReport:
    """Fetch the clips of `plan` into `out`, resuming an earlier run.

    progress: called with (places settled, places). stop_after: end after so many clips have been
    fetched. Raises `AnymodalError` for what stops the whole run: an invalid plan, a full disk,
    another run on the same folder, a damaged ledger.
    """
    out = Path(out)
    rows = rows_of(validate_plan(plan))
    with exclusive(out / ".lock", f"another run is fetching into {out}; wait for it"):
        scratch = out / _SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            ledger = Ledger(out / NAME)
            with Shards(out / FOLDER, round(params.shard_mb * 1_000_000)) as shards:
                recover(ledger, shards)
                run = _Run(rows, downloader, scratch, params, ledger, shards)
                run.go(progress, stop_after)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise AnymodalError(f"no space left on the disk of {out}; free some") from error
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return report_of(rows, out, params, fetched=run.fetched, stopped=run.stopped)


def recover(ledger: Ledger, shards: Shards) -> None:
    """Record as done what is in a shard, and as lost what the ledger calls done and is not.

    A finished shard that the ledger names is trusted; the others are read.
    """
    named = {entry.shard for entry in ledger.done.values()}
    finished = shards.finished
    unknown = sorted(finished - named) + ([shards.unfinished] if shards.unfinished else [])
    stored = {clip.key: clip for shard in unknown for clip in shards.clips(shard) if clip.key}
    for key, entry in list(ledger.done.items()):
        shard = stored[key].shard if key in stored else None
        if entry.shard not in finished and entry.shard != shard:
            reason = f"{entry.shard} lacks it"
            ledger.record(Entry(key=key, video_id=entry.video_id, status=Status.LOST, error=reason))
    clip_ids = {entry.clip_id for entry in ledger.done.values()}
    for clip in stored.values():
        if clip.key not in ledger.done and clip.clip_id not in clip_ids:
            clip_ids.add(clip.clip_id)
            place = {"clip_id": clip.clip_id, "shard": clip.shard, "via": "found in the shard"}
            ledger.record(
                Entry.model_validate({"video_id": "", **clip.facts, **place, "status": "done"})
            )


@dataclass
class _Run:
    """One run of `fetch_plan`."""

    rows: list[PlannedClip]
    downloader: Downloader
    scratch: Path
    params: AudioSetParams
    ledger: Ledger
    shards: Shards
    fetched: int = 0
    stopped: str | None = None

    def __post_init__(self) -> None:
        self._clip_ids = {entry.clip_id for entry in self.ledger.done.values()}
        self._failing: list[Result] = []
        """Failures since the last clip that did not fail; recorded once it is clear whether they
        are an outage."""
        self._places = sum(row.role == "wanted" for row in self.rows)
        self._queue = FetchQueue(self.rows, self._status)

    def go(self, progress: Callable[[int, int], None] | None, stop_after: int | None) -> None:
        """Fetch until nothing is left, or something stops it."""
        gate = Gate()
        running: set[Future[Result]] = set()
        pool = ThreadPoolExecutor(self.params.parallel, thread_name_prefix="fetch")

        def may_start() -> bool:
            most = self.params.parallel
            if stop_after is not None:
                most = min(most, stop_after - self.fetched)
            return not self.stopped and len(self._queue) > 0 and len(running) < most

        try:
            while True:
                while may_start():
                    task = (self._queue.next(), self.downloader, self.scratch, self.params, gate)
                    running.add(pool.submit(fetch_clip, *task))
                if progress:
                    progress(self._places - len(self._queue) - len(running), self._places)
                if not running:
                    # recording the last failures may call up a reserve
                    self._record_failures(Status.OUTAGE if self.stopped else Status.FAILED)
                    if not may_start():
                        return
                    continue
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._settle(future.result())
                if self.stopped:
                    gate.stop.set()
        finally:
            gate.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _status(self, row: PlannedClip) -> Status | None:
        return self.ledger.status(
            row.key, row.video_id, remote=self.downloader.remote, give_up=self.params.give_up
        )

    def _settle(self, result: Result) -> None:
        """Store a clip, or record why there is none; in the calling thread."""
        error, clip, row = result.error, result.clip, result.row
        if error is not None and error.status is Status.FAILED:
            self._failing.append(result)
            if len(self._failing) >= self.params.outage and self.downloader.remote:
                self._record_failures(Status.OUTAGE)
                self.stopped = (
                    f"{self.params.outage} clips in a row failed, the last with: {error}; the "
                    "network may be down, or the server refuses us: run again later"
                )
            return
        self._record_failures(Status.FAILED)
        if error is not None:
            self._record(result, error.status, error=str(error))
            return
        assert clip is not None
        if clip.clip_id in self._clip_ids:
            self._record(result, Status.DUPLICATE, error=f"same as {clip.clip_id}")
            return
        size = {"width": clip.width, "height": clip.height}
        times = {"window_s": row.window_s, "frame_s": row.frame_s}
        shard = self.shards.add(clip, {"key": row.key, "video_id": row.video_id, **times, **size})
        self._clip_ids.add(clip.clip_id)
        self.fetched += 1
        self._record(result, Status.DONE, clip_id=clip.clip_id, shard=shard, **size)

    def _record_failures(self, status: Status) -> None:
        failing, self._failing = self._failing, []
        for result in failing:
            self._record(result, status, error=str(result.error))

    def _record(self, result: Result, status: Status, **more: Any) -> None:
        """Append to the ledger, and queue a reserve if the clip is dead."""
        row = result.row
        latest = self.ledger.latest(row.key)
        # a file is looked for in each run, and its absence recorded once
        if latest is None or not latest.status is status is Status.ABSENT:
            facts = {"key": row.key, "video_id": row.video_id, "attempts": result.attempts}
            source = {"via": self.downloader.name, "remote": self.downloader.remote}
            self.ledger.record(Entry.model_validate(facts | source | more | {"status": status}))
        if status in DEAD or self._status(row) in DEAD:
            self._queue.replace(row)
