"""The clip table and the account of what was fetched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from anymodal.config.params import AudioSetParams
from anymodal.core.archive import member_path
from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.ledger import NAME, Entry, Ledger
from anymodal.data.audioset.plan import validate_plan
from anymodal.data.audioset.queue import PlannedClip, places, rows_of
from anymodal.data.audioset.shards import FOLDER
from anymodal.data.audioset.status import DEAD, Status
from anymodal.data.clips import COLUMNS, SPLITS, validate
from anymodal.ontology.instruments import INSTRUMENTS

_COUNTS = ("wanted", "fetched", "dead", "replaced", "failed", "short")
ACCOUNT_COLUMNS = ("subset", "instrument", "split", *_COUNTS)


@dataclass(frozen=True)
class FetchReport:
    """Result of a run of fetching."""

    account: pd.DataFrame
    """A row for every subset, split and (of the classification subset) class: clips `wanted`;
    `fetched`, in a shard; `dead`; `replaced`, dead with a fetched reserve; `failed`, for a
    temporary reason; `short` = wanted − fetched."""
    causes: dict[str, int]
    """Status → number of clips of the plan, reserves included, whose last status it is."""
    tiny: int
    """Clips in use whose frame is smaller than asked for."""
    fetched: int
    """Clips fetched in this run."""
    stopped: str | None
    """Why the run ended early, if it did."""

    @property
    def dead_share(self) -> float:
        """Share of dead clips among those that are dead or done."""
        dead = sum(self.causes.get(status, 0) for status in DEAD)
        settled = dead + self.causes.get(Status.DONE, 0)
        return dead / settled if settled else 0.0

    def summary(self) -> dict[str, Any]:
        """All of it as plain values, with the account's sums."""
        account = self.account.astype(object).where(self.account.notna(), None)
        return {
            **{name: int(self.account[name].sum()) for name in _COUNTS},
            "dead_share": self.dead_share,
            "tiny": self.tiny,
            "causes": self.causes,
            "stopped": self.stopped,
            "account": account.to_dict("records"),
        }


def clips_of(plan: pd.DataFrame, out: str | Path, params: AudioSetParams) -> pd.DataFrame:
    """The clip table of what is in the shards of `out`, rows in the order of the plan's places.

    `audio` and `image` name members of shards relative to `out`; `group` is the video. A reserve
    has the subset and split of the clip that it replaces, final once fetching is complete.
    """
    known = _Known(Path(out), params)
    labels = plan["labels"].tolist()
    records = []
    for wanted, holder in places(rows_of(validate_plan(plan)), known.lasting):
        entry = known.stored(holder)
        if holder is None or entry is None:
            continue
        shard = f"{FOLDER}/{entry.shard}"
        audio, image = (member_path(shard, entry.clip_id + end) for end in (".flac", ".jpg"))
        row = (entry.clip_id, audio, image, 0.0, list(labels[holder.row]), holder.instrument)
        group = (holder.video_id, "clip", holder.subset, wanted.split)
        records.append((*row, "audioset", *group))
    return validate(pd.DataFrame(records, columns=list(COLUMNS)))


def report_of(
    rows: list[PlannedClip], out: Path, params: AudioSetParams, *, fetched: int, stopped: str | None
) -> FetchReport:
    """The account of `out` against the rows of a plan."""
    known = _Known(out, params)
    cells: dict[tuple[str, str, str], Counter[str]] = {}
    tiny = 0
    for wanted, holder in places(rows, known.lasting):
        entry = known.stored(holder)
        cell = cells.setdefault((*wanted.pool, str(wanted.split)), Counter())
        cell["wanted"] += 1
        cell["dead"] += holder is not wanted
        if entry is not None:
            cell["fetched"] += 1
            cell["replaced"] += holder is not wanted
            tiny += min(entry.width, entry.height) < params.short_side
        else:
            cell["short"] += 1
            temporary = (Status.FAILED, Status.OUTAGE)
            cell["failed"] += holder is not None and known.status(holder) in temporary
    lines = [
        (subset, instrument or None, split, *(cell[name] for name in _COUNTS))
        for (subset, instrument, split), cell in sorted(cells.items())
    ]
    account = pd.DataFrame(lines, columns=list(ACCOUNT_COLUMNS))
    causes = Counter(str(status) for row in rows if (status := known.status(row)) is not None)
    return FetchReport(account, dict(sorted(causes.items())), tiny, fetched, stopped)


def rebalance(clips: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return clips with as many of every class in each split of the classification subset as the
    smallest class has there, and the number dropped for it.

    The first of each class stay, which were drawn at random. Raises `AnymodalError` where a class
    has none in a split.
    """
    classified = clips["subset"] == "classification"
    table = clips[classified]
    sizes = pd.crosstab(table["split"], table["instrument"])
    sizes = sizes.reindex(index=list(SPLITS), columns=list(INSTRUMENTS), fill_value=0)
    names = [f"{name} ({split})" for split in SPLITS for name in INSTRUMENTS]
    empty = [name for name, size in zip(names, sizes.to_numpy().flat, strict=True) if not size]
    if empty:
        raise AnymodalError(
            f"nothing could be fetched of {', '.join(empty[:5])}{', …' if empty[5:] else ''}; run "
            "again later, or raise audioset.reserve and draw again with --replan"
        )
    place = table.groupby(["split", "instrument"]).cumcount()
    surplus = table.index[place >= table["split"].map(sizes.min(axis=1))]
    return clips.drop(index=surplus).reset_index(drop=True), len(surplus)


class _Known:
    """The ledger of a folder, read together with its shards."""

    def __init__(self, out: Path, params: AudioSetParams) -> None:
        self._ledger = Ledger(out / NAME)
        self._give_up = params.give_up
        self._shards = {each.name for each in (out / FOLDER).glob("audioset-*.tar")}

    def stored(self, row: PlannedClip | None) -> Entry | None:
        """The entry of a clip that is in a finished shard."""
        entry = None if row is None else self._ledger.done.get(row.key)
        return entry if entry is not None and entry.shard in self._shards else None

    def status(self, row: PlannedClip) -> Status | None:
        """The last status of a clip, from whatever source."""
        lasting = self._ledger.status(row.key, row.video_id, remote=True, give_up=self._give_up)
        entry = self._ledger.latest(row.key)
        return lasting or (entry.status if entry else None)

    def lasting(self, row: PlannedClip) -> Status | None:
        """Done, one of `DEAD`, or None."""
        status = self.status(row)
        return status if status is Status.DONE or status in DEAD else None
