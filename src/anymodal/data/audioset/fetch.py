"""Fetch what a plan asks for: several clips at a time, resumable, dead ones replaced.

    <out>/shards/audioset-000000.tar …   the clips (`shards`)
    <out>/ledger.jsonl                   what became of every clip that was tried (`ledger`)

Only the thread that calls writes; workers fetch and cut. A clip is on disk in its shard before the
ledger says `done`, so that a run killed at any moment loses no more than the clips in flight, and
its successor starts no finished or dead one again. Which clips a complete run ends with depends on
the plan and on who is dead alone; in which shard each lies depends on who came first.

An unbroken run of failures that may pass (`outage` of them) says that the network is down or that
the other side shuts us out: the run stops, and those failures count against nobody.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd

from anymodal.config.params import AudioSetParams
from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.downloader import Downloader, LocalDownloader
from anymodal.data.audioset.ledger import NAME, Entry, Ledger, only_run
from anymodal.data.audioset.plan import validate_plan
from anymodal.data.audioset.queue import Roster, Wanted, rows_of
from anymodal.data.audioset.recovery import reconcile
from anymodal.data.audioset.results import FetchReport, report_of
from anymodal.data.audioset.retry import Gate, Result, try_clip
from anymodal.data.audioset.shards import FOLDER, Shards
from anymodal.data.audioset.status import DEAD, Verdict

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
    *,
    seed: int = 0,
) -> FetchReport:
    """Fetch the clips of `plan` into `out`, going on from where an earlier run stopped.

    plan: see `plan.SCHEMA`. progress: told (places settled, places) from this thread. stop_after:
    end after so many clips have been fetched in this run. seed: of the pauses between tries.

    The shards are finished when this returns. Raises `AnymodalError` for what stops the whole
    run: an invalid plan, a full disk, another run on the same folder, a damaged ledger.
    """
    out = Path(out)
    if stop_after is not None and stop_after < 0:
        raise AnymodalError(f"stop_after must be 0 or more, not {stop_after}")
    rows = rows_of(validate_plan(plan))
    with only_run(out):
        scratch = out / _SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            with (
                Ledger(out / NAME) as ledger,
                Shards(out / FOLDER, round(params.shard_mb * 1_000_000)) as shards,
            ):
                reconcile(ledger, shards)
                run = _Run(rows, downloader, scratch, params, ledger, shards, seed)
                run.go(progress, stop_after)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise AnymodalError(
                f"no space left on the disk of {out}; free some and run again"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return report_of(rows, out, params, fetched=run.fetched, stopped=run.stopped)


class _Run:
    """One run of `fetch_plan`."""

    def __init__(
        self,
        rows: list[Wanted],
        downloader: Downloader,
        scratch: Path,
        params: AudioSetParams,
        ledger: Ledger,
        shards: Shards,
        seed: int,
    ) -> None:
        self.fetched = 0
        self.stopped: str | None = None
        self._rows = rows
        self._downloader = downloader
        self._scratch = scratch
        self._params = params
        self._ledger = ledger
        self._shards = shards
        self._seed = seed
        self._ids = {entry.clip_id for entry in ledger.done.values()}
        self._failing: list[Result] = []
        """Failures since the last clip that did not fail; noted once it is clear what they are."""

    def go(self, progress: Callable[[int, int], None] | None, stop_after: int | None) -> None:
        """Fetch until nothing is left, or something stops it."""
        roster = Roster(self._rows, self._status)
        total = sum(not row.reserve for row in self._rows)
        gate = Gate()
        flying: set[Future[Result]] = set()
        pool = ThreadPoolExecutor(self._params.parallel, thread_name_prefix="fetch")
        try:
            while True:
                while len(flying) < self._params.parallel and self._may_start(
                    len(flying), stop_after
                ):
                    row = roster.next()
                    if row is None:
                        break
                    flying.add(
                        pool.submit(
                            try_clip,
                            row,
                            self._downloader,
                            self._scratch,
                            self._params,
                            gate,
                            self._seed,
                        )
                    )
                if progress:
                    progress(total - len(roster) - len(flying), total)
                if not flying:
                    # what failed last may have used up its tries, and call up a reserve
                    self._note_failures(Verdict.OUTAGE if self.stopped else Verdict.FAILED, roster)
                    if not len(roster) or not self._may_start(0, stop_after):
                        return
                    continue
                landed, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in landed:
                    self._settle(future.result(), roster)
                if self.stopped:
                    gate.stop.set()
        finally:
            gate.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _may_start(self, flying: int, stop_after: int | None) -> bool:
        if self.stopped:
            return False
        return stop_after is None or self.fetched + flying < stop_after

    def _status(self, row: Wanted) -> Verdict | None:
        return self._ledger.verdict(
            row.key, row.video_id, remote=self._downloader.remote, give_up=self._params.give_up
        )

    def _settle(self, result: Result, roster: Roster) -> None:
        """Take in one result, in the calling thread."""
        error = result.error
        if error is not None and error.verdict is Verdict.FAILED:
            self._failing.append(result)
            if len(self._failing) >= self._params.outage and self._downloader.remote:
                self._note_failures(Verdict.OUTAGE, roster)
                self.stopped = (
                    f"{self._params.outage} clips in a row failed, the last with: {error}; the "
                    "network may be down, or the other side shut us out: run again later"
                )
            return
        self._note_failures(Verdict.FAILED, roster)
        if error is not None:
            self._note(result, error.verdict, str(error), roster)
            return
        assert result.clip is not None
        if result.clip.clip_id in self._ids:
            self._note(result, Verdict.DUPLICATE, f"same as {result.clip.clip_id}", roster)
            return
        self._store(result)

    def _store(self, result: Result) -> None:
        clip, row = result.clip, result.row
        assert clip is not None
        facts: dict[str, Any] = {
            "key": row.key,
            "video_id": row.video_id,
            "moment_s": row.moment_s,
            "frame_s": row.frame_s,
            "width": clip.width,
            "height": clip.height,
        }
        shard = self._shards.add(clip, facts)
        self._ids.add(clip.clip_id)
        self.fetched += 1
        self._record(
            result,
            Verdict.DONE,
            clip_id=clip.clip_id,
            shard=shard,
            width=clip.width,
            height=clip.height,
        )

    def _note_failures(self, verdict: Verdict, roster: Roster) -> None:
        failing, self._failing = self._failing, []
        for result in failing:
            self._note(result, verdict, str(result.error), roster)

    def _note(self, result: Result, verdict: Verdict, error: str, roster: Roster) -> None:
        """Write down why a clip was not had, and call up a reserve if it is dead."""
        self._record(result, verdict, error=error)
        if verdict in DEAD or self._status(result.row) in DEAD:
            roster.died(result.row)

    def _record(self, result: Result, verdict: Verdict, **more: Any) -> None:
        latest = self._ledger.latest(result.row.key)
        if latest is not None and latest.verdict is verdict is Verdict.ABSENT:
            return  # each run looks again, and need not say so again
        self._ledger.record(
            Entry(
                result.row.key,
                result.row.video_id,
                verdict,
                result.attempts,
                via=self._downloader.name,
                remote=self._downloader.remote,
                **more,
            )
        )
