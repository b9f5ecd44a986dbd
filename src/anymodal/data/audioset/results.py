"""What fetching has yielded: the clip table, and the account of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from anymodal.config.params import AudioSetParams
from anymodal.core.archive import member_path
from anymodal.data.audioset.ledger import NAME, Entry, Ledger
from anymodal.data.audioset.plan import validate_plan
from anymodal.data.audioset.queue import Wanted, places, rows_of
from anymodal.data.audioset.shards import FOLDER
from anymodal.data.audioset.status import DEAD, Verdict
from anymodal.data.clips import COLUMNS, empty_clips, validate

ACCOUNT_COLUMNS = (
    "subset",
    "instrument",
    "split",
    "wanted",
    "fetched",
    "dead",
    "replaced",
    "failed",
    "short",
)


@dataclass(frozen=True)
class FetchReport:
    """What a run of fetching leaves behind."""

    account: pd.DataFrame
    """A row for every subset, split and (of the classification subset) class: `wanted` places;
    `fetched`, those held by a clip that lies in a shard; `dead`, whose wanted clip cannot be had;
    `replaced`, those of them with a stand-in that is fetched; `failed`, whose holder failed for
    reasons that may pass, another run tries it again; `short` = wanted − fetched."""
    causes: dict[str, int]
    """Verdict → number of clips of the plan, reserves included, with that last verdict."""
    tiny: int
    """Clips in use whose frame is smaller than asked for."""
    fetched: int
    """Clips fetched in this run."""
    stopped: str | None
    """Why the run ended early, if it did."""
    ledger: Path

    @property
    def dead_share(self) -> float:
        """Share of the clips of which there is a lasting verdict that are dead."""
        dead = sum(self.causes.get(verdict, 0) for verdict in DEAD)
        settled = dead + self.causes.get(Verdict.DONE, 0)
        return dead / settled if settled else 0.0

    def summary(self) -> dict[str, Any]:
        """All of it as JSON takes it, with the account's sums."""
        sums = {name: int(self.account[name].sum()) for name in ACCOUNT_COLUMNS[3:]}
        return {
            **sums,
            "dead_share": self.dead_share,
            "tiny": self.tiny,
            "causes": self.causes,
            "stopped": self.stopped,
            "account": self.account.astype(object)
            .where(self.account.notna(), None)
            .to_dict("records"),
        }


def clips_of(plan: pd.DataFrame, out: str | Path, params: AudioSetParams) -> pd.DataFrame:
    """The clip table of what lies in the shards of `out`, rows in the order of the plan's places.

    `audio` and `image` name members of shards relative to `out`; both are the same moment of one
    video (pairing `clip`), and its video is a clip's group. A stand-in has the subset and split
    of the clip that it stands in for. Valid also while fetching is not complete, but which
    stand-in has which split is settled only then.
    """
    rows = rows_of(validate_plan(plan))
    known = _Known(Path(out), params)
    labels = plan["labels"].tolist()
    found = []
    for place in places(rows, known.status):
        holder = place.holder
        entry = None if holder is None else known.stored(holder)
        if holder is None or entry is None:
            continue
        shard = f"{FOLDER}/{entry.shard}"
        found.append(
            (
                entry.clip_id,
                member_path(shard, f"{entry.clip_id}.flac"),
                member_path(shard, f"{entry.clip_id}.jpg"),
                0.0,
                list(labels[holder.row]),
                holder.instrument,
                "audioset",
                holder.video_id,
                "clip",
                holder.subset,
                place.wanted.split,
            )
        )
    if not found:
        return empty_clips()
    return validate(pd.DataFrame(found, columns=list(COLUMNS)).astype({"start_s": "float64"}))


def report_of(
    rows: list[Wanted], out: Path, params: AudioSetParams, *, fetched: int, stopped: str | None
) -> FetchReport:
    """The account of `out` against the rows of a plan."""
    known = _Known(out, params)
    cells: dict[tuple[str, str | None, str], Counter[str]] = {}
    tiny = 0
    for place in places(rows, known.status):
        wanted, holder = place.wanted, place.holder
        cell = cells.setdefault(
            (wanted.subset, wanted.pool[1] or None, str(wanted.split)), Counter()
        )
        entry = None if holder is None else known.stored(holder)
        cell["wanted"] += 1
        cell["dead"] += holder is not wanted
        if entry is not None:
            cell["fetched"] += 1
            cell["replaced"] += place.replaced
            tiny += min(entry.width, entry.height) < params.short_side
        else:
            cell["short"] += 1
            cell["failed"] += holder is not None and known.failed(holder)
    account = pd.DataFrame(
        [
            (*key, *(cell[name] for name in ACCOUNT_COLUMNS[3:]))
            for key, cell in sorted(
                cells.items(), key=lambda each: [part or "" for part in each[0]]
            )
        ],
        columns=list(ACCOUNT_COLUMNS),
    )
    causes = Counter(str(verdict) for row in rows if (verdict := known.verdict(row)) is not None)
    return FetchReport(account, dict(sorted(causes.items())), tiny, fetched, stopped, out / NAME)


class _Known:
    """The ledger of a folder, read beside its shards."""

    def __init__(self, out: Path, params: AudioSetParams) -> None:
        self._ledger = Ledger(out / NAME)
        self._give_up = params.give_up
        self._shards = {each.name for each in (out / FOLDER).glob("audioset-*.tar")}

    def stored(self, row: Wanted) -> Entry | None:
        """The entry of a clip that lies in a finished shard."""
        entry = self._ledger.done.get(row.key)
        return entry if entry is not None and entry.shard in self._shards else None

    def verdict(self, row: Wanted) -> Verdict | None:
        """The last word on a clip, whatever source said it."""
        lasting = self._ledger.verdict(row.key, row.video_id, remote=True, give_up=self._give_up)
        if lasting is not None:
            return lasting
        entry = self._ledger.latest(row.key)
        return None if entry is None else entry.verdict

    def status(self, row: Wanted) -> Verdict | None:
        """As `roster.Status`: done, dead or None."""
        verdict = self.verdict(row)
        return verdict if verdict is Verdict.DONE or verdict in DEAD else None

    def failed(self, row: Wanted) -> bool:
        """Whether its last try failed for reasons that may pass."""
        return self.verdict(row) in (Verdict.FAILED, Verdict.OUTAGE)
