"""Who is to be fetched, and who stands in for whom.

A pool is a subset (of the classification subset: one class). Its wanted clips each hold a place
with a split. Where a wanted clip is dead, the next reserve of the pool, by rank, takes its place
and its split; where that is dead too, the one after it. Which reserves end up where depends on
who is dead, never on the order in which that was found out: the n-th dead clip by rank gets the
n-th reserve by rank that is not dead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pandas as pd

from anymodal.data.audioset.status import DEAD, Verdict

Status = Callable[["Wanted"], Verdict | None]
"""The verdict on a clip; None while there is none that lasts."""
Pool = tuple[str, str]
"""Subset, and class or ''."""


@dataclass(frozen=True)
class Wanted:
    """A row of the plan: one second of one video."""

    row: int
    """Place in the plan."""
    video_id: str
    subset: str
    instrument: str | None
    split: str | None
    reserve: bool
    moment_s: float
    frame_s: float

    @property
    def key(self) -> str:
        """Names the video, the second and the frame: what a fetched clip can be known by."""
        frame = round((self.frame_s - self.moment_s) * 1000)
        return f"{self.video_id}@{round(self.moment_s * 1000)}+{frame}"

    @property
    def pool(self) -> Pool:
        """Where its stand-ins come from."""
        return self.subset, (self.instrument or "") if self.subset == "classification" else ""


@dataclass(frozen=True)
class Place:
    """One of the clips that the plan asks for."""

    wanted: Wanted
    holder: Wanted | None
    """The clip itself, its stand-in, or None where no reserve is left."""

    @property
    def replaced(self) -> bool:
        """Whether a stand-in holds it."""
        return self.holder is not None and self.holder is not self.wanted


@dataclass
class _Pool:
    wanted: list[Wanted] = field(default_factory=list)
    reserve: list[Wanted] = field(default_factory=list)
    called: int = 0
    """Reserves called up so far."""


def rows_of(plan: pd.DataFrame) -> list[Wanted]:
    """The rows of a valid plan, in order."""
    columns = ("video_id", "subset", "instrument", "split", "role", "moment_s", "frame_s")
    rows = zip(*(plan[column] for column in columns), strict=True)
    return [
        Wanted(
            row,
            str(video_id),
            str(subset),
            None if pd.isna(instrument) else str(instrument),
            None if pd.isna(split) else str(split),
            role == "reserve",
            float(window),
            float(frame),
        )
        for row, (video_id, subset, instrument, split, role, window, frame) in enumerate(rows)
    ]


def places(rows: list[Wanted], status: Status) -> Iterator[Place]:
    """Every place of the plan and who holds it, in the order of the pools and ranks."""
    for pool in _pools(rows).values():
        living = (each for each in pool.reserve if status(each) not in DEAD)
        for wanted in pool.wanted:
            dead = status(wanted) in DEAD
            yield Place(wanted, next(living, None) if dead else wanted)


class Roster:
    """The clips still to be fetched.

    rows: the plan's rows, those of a pool and role by rank. status: what is known of each.
    """

    def __init__(self, rows: list[Wanted], status: Status) -> None:
        self._status = status
        self._pools = _pools(rows)
        self._queue: deque[Wanted] = deque()
        for pool in self._pools.values():
            dead = 0
            for wanted in pool.wanted:
                verdict = status(wanted)
                dead += verdict in DEAD
                if verdict is None:
                    self._queue.append(wanted)
            for _ in range(dead):
                self._call_up(pool)

    def __len__(self) -> int:
        """Clips that wait."""
        return len(self._queue)

    def next(self) -> Wanted | None:
        """The next clip to fetch, if there is one."""
        return self._queue.popleft() if self._queue else None

    def died(self, row: Wanted) -> None:
        """A clip turned out dead: call up the next of its reserve."""
        self._call_up(self._pools[row.pool])

    def _call_up(self, pool: _Pool) -> None:
        while pool.called < len(pool.reserve):
            reserve = pool.reserve[pool.called]
            pool.called += 1
            verdict = self._status(reserve)
            if verdict is None:
                self._queue.append(reserve)
            if verdict not in DEAD:
                return


def _pools(rows: list[Wanted]) -> dict[Pool, _Pool]:
    """Rows by pool; the plan has them by rank."""
    pools: dict[Pool, _Pool] = {}
    for row in rows:
        pool = pools.setdefault(row.pool, _Pool())
        (pool.reserve if row.reserve else pool.wanted).append(row)
    return pools
