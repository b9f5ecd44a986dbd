"""Which clips are to be fetched, and which replace the dead.

A pool is a subset (in the classification subset: one class). Where a wanted clip of a pool is dead,
the next reserve by rank takes its place and its split: the n-th dead clip by rank gets the n-th
reserve that is not dead, in whatever order the deaths are found out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from anymodal.data.audioset.status import DEAD, Status

StatusOf = Callable[["PlannedClip"], Status | None]
"""The lasting status of a clip, if it has one."""


@dataclass(frozen=True)
class PlannedClip:
    """A row of the plan: one second of one video."""

    row: int
    """Place in the plan."""
    video_id: str
    subset: str
    instrument: str | None
    split: str | None
    role: str
    window_s: float
    frame_s: float

    @property
    def key(self) -> str:
        """Names the video, the second and the frame."""
        frame = round((self.frame_s - self.window_s) * 1000)
        return f"{self.video_id}@{round(self.window_s * 1000)}+{frame}"

    @property
    def pool(self) -> tuple[str, str]:
        """Subset, and class or ""."""
        return self.subset, (self.instrument or "") if self.subset == "classification" else ""


def rows_of(plan: pd.DataFrame) -> list[PlannedClip]:
    """The rows of a valid plan, in order."""
    table = plan.astype(object).where(plan.notna(), None).reset_index(drop=True)
    names = ["video_id", "subset", "instrument", "split", "role", "window_s", "frame_s"]
    return [PlannedClip(*row) for row in table[names].itertuples(name=None)]


def places(
    rows: list[PlannedClip], status: StatusOf
) -> Iterator[tuple[PlannedClip, PlannedClip | None]]:
    """Every wanted clip and who holds its place: the clip itself, its replacement, or None where no
    reserve is left; in the order of the pools and ranks."""
    for pool in _pools(rows).values():
        living = (each for each in pool["reserve"] if status(each) not in DEAD)
        for wanted in pool["wanted"]:
            dead = status(wanted) in DEAD
            yield wanted, next(living, None) if dead else wanted


class FetchQueue:
    """The clips still to be fetched."""

    def __init__(self, rows: list[PlannedClip], status: StatusOf) -> None:
        self._status = status
        self._pools = _pools(rows)
        wanted = [row for pool in self._pools.values() for row in pool["wanted"]]
        self._queue = deque(row for row in wanted if status(row) is None)
        for row in wanted:
            if status(row) in DEAD:
                self.replace(row)

    def __len__(self) -> int:
        """Clips that wait."""
        return len(self._queue)

    def next(self) -> PlannedClip:
        """Take the next clip to fetch; the queue must not be empty."""
        return self._queue.popleft()

    def replace(self, dead: PlannedClip) -> None:
        """Queue the next reserve in place of a clip that turned out dead."""
        reserves = self._pools[dead.pool]["reserve"]
        while reserves:
            reserve = reserves.popleft()
            status = self._status(reserve)
            if status is None:
                self._queue.append(reserve)
            if status not in DEAD:
                return


def _pools(rows: list[PlannedClip]) -> dict[tuple[str, str], dict[str, deque[PlannedClip]]]:
    """Rows by pool and role; the plan has them by rank."""
    pools: dict[tuple[str, str], dict[str, deque[PlannedClip]]] = {}
    for row in rows:
        pool = pools.setdefault(row.pool, {"wanted": deque(), "reserve": deque()})
        pool[row.role].append(row)
    return pools
