"""The ledger: the status of every clip that was tried, in the order in which they were settled."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from anymodal.core.errors import AnymodalError
from anymodal.core.journal import Journal
from anymodal.data.audioset.status import LASTING, OF_THE_VIDEO, Status

NAME = "ledger.jsonl"


class Entry(BaseModel):
    """What became of one clip in one run; fields of later versions are ignored."""

    model_config = ConfigDict(frozen=True)

    key: str
    """`queue.PlannedClip.key`."""
    video_id: str
    # `verdict` in folders fetched by earlier versions
    status: Status = Field(validation_alias=AliasChoices("status", "verdict"))
    attempts: int = 0
    """Attempts in this run."""
    error: str = ""
    """The reason in one line; empty when done."""
    via: str = ""
    """The downloader's name."""
    remote: bool = True
    """The downloader's `remote`."""
    time: str = ""
    """UTC, ISO 8601."""
    clip_id: str = ""
    shard: str = ""
    """File name of the tar that holds it, when done."""
    width: int = 0
    height: int = 0
    """Pixels of its frame, when done."""


class Ledger:
    """The ledger of a folder, a `Journal`.

    `done` maps keys to the entries of clips that are in shards.
    """

    def __init__(self, path: str | Path) -> None:
        self._journal = Journal(path)
        self.done: dict[str, Entry] = {}
        self._latest: dict[str, Entry] = {}
        self._videos: dict[str, Status] = {}
        self._failures: Counter[str] = Counter()
        for number, line in enumerate(self._journal.entries, start=1):
            try:
                self._take(Entry.model_validate(line))
            except ValidationError as error:
                raise AnymodalError(
                    f"{path}: line {number} is damaged; remove that line and run again"
                ) from error

    def record(self, entry: Entry) -> None:
        """Append an entry; it is on disk when this returns."""
        entry = entry.model_copy(update={"time": datetime.now(UTC).isoformat("T", "seconds")})
        self._journal.append(entry.model_dump(mode="json", exclude_defaults=True))
        self._take(entry)

    def latest(self, key: str) -> Entry | None:
        """The last entry of a clip."""
        return self._latest.get(key)

    def status(self, key: str, video_id: str, *, remote: bool, give_up: int) -> Status | None:
        """The lasting status of a clip: done, or one of `LASTING`; None: to be fetched (again).

        That of a clip from a local folder never lasts, for files can be added to it. remote: the
        kind of source that is asked now. A clip that failed `give_up` times counts as broken.
        """
        if key in self.done:
            return Status.DONE
        if not remote:
            return None
        if (of_video := self._videos.get(video_id)) is not None:
            return of_video
        latest = self._latest.get(key)
        if latest is not None and latest.remote and latest.status in LASTING:
            return latest.status
        return Status.BROKEN if self._failures[key] >= give_up else None

    def _take(self, entry: Entry) -> None:
        self._latest[entry.key] = entry
        if entry.status is Status.DONE:
            self.done[entry.key] = entry
        elif entry.status is Status.LOST:
            self.done.pop(entry.key, None)
        if entry.remote and entry.status is Status.FAILED:
            self._failures[entry.key] += entry.attempts
        if entry.remote and entry.status in OF_THE_VIDEO:
            self._videos[entry.video_id] = entry.status
