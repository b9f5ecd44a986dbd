"""The ledger: one line for every clip that was tried, in the order in which it was settled.

An append-only file of JSON lines: whatever ends a run, the lines before stay. A last line that
was cut off is dropped when the ledger is opened again. Reading it tells what needs no further try:
clips that are done, and clips that never will be.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.status import LASTING, OF_THE_VIDEO, Verdict

NAME = "ledger.jsonl"


@dataclass(frozen=True)
class Entry:
    """What became of one clip in one run."""

    key: str
    """Which clip: video, second and frame (`plan.Wanted.key`)."""
    video_id: str
    verdict: Verdict
    attempts: int
    """Tries in this run."""
    error: str = ""
    """The reason in one line; empty when done."""
    via: str = ""
    """Kind of source: the downloader's name."""
    remote: bool = True
    """Whether that source is one where what is gone stays gone."""
    time: str = ""
    """UTC, ISO 8601."""
    clip_id: str = ""
    shard: str = ""
    """File name of the tar that holds it, when done."""
    width: int = 0
    height: int = 0
    """Pixels of its frame, when done."""


class Ledger:
    """The ledger of a folder; `record` needs it opened by `with`.

    After opening, `done` maps keys to the entries of clips that lie in shards.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.done: dict[str, Entry] = {}
        self._latest: dict[str, Entry] = {}
        self._videos: dict[str, Verdict] = {}
        self._failures: Counter[str] = Counter()
        self._file: BinaryIO | None = None
        self._whole = 0  # bytes up to the end of the last whole line
        if self.path.is_file():
            self._read()

    def __enter__(self) -> Ledger:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        self._file.truncate(self._whole)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def record(self, entry: Entry) -> None:
        """Append an entry; it is on disk when this returns."""
        if self._file is None:
            raise RuntimeError("the ledger is not open")
        entry = Entry(**{**asdict(entry), "time": datetime.now(UTC).isoformat("T", "seconds")})
        told = {name: each for name, each in asdict(entry).items() if each not in ("", 0)}
        self._file.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(entry)

    def latest(self, key: str) -> Entry | None:
        """The last entry of a clip."""
        return self._latest.get(key)

    def verdict(self, key: str, video_id: str, *, remote: bool, give_up: int) -> Verdict | None:
        """The lasting verdict on a clip: done, or one of `LASTING`; None: to be tried (again).

        What a folder on disk said never lasts, for files can be added to it (`remote` tells which
        kind of source is asked now). A clip that failed `give_up` times counts as broken.
        """
        if key in self.done:
            return Verdict.DONE
        if not remote:
            return None
        if (of_video := self._videos.get(video_id)) is not None:
            return of_video
        latest = self._latest.get(key)
        if latest is not None and latest.remote and latest.verdict in LASTING:
            return latest.verdict
        return Verdict.BROKEN if self._failures[key] >= give_up else None

    def failures(self, key: str) -> int:
        """How often a clip has failed for reasons that may pass, over all runs."""
        return self._failures[key]

    def _read(self) -> None:
        content = self.path.read_bytes()
        self._whole = content.rfind(b"\n") + 1
        known = {field.name for field in fields(Entry)}
        for number, line in enumerate(content[: self._whole].splitlines(), start=1):
            try:
                told = json.loads(line)
                told = {name: each for name, each in told.items() if name in known}
                self._take(Entry(**{"attempts": 0, **told, "verdict": Verdict(told["verdict"])}))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise AnymodalError(
                    f"{self.path}: line {number} is damaged; remove that line and run again"
                ) from error

    def _take(self, entry: Entry) -> None:
        self._latest[entry.key] = entry
        if entry.verdict is Verdict.DONE:
            self.done[entry.key] = entry
        elif entry.verdict is Verdict.LOST:
            self.done.pop(entry.key, None)
        if entry.verdict is Verdict.FAILED and entry.remote:
            self._failures[entry.key] += entry.attempts
        if entry.verdict in OF_THE_VIDEO and entry.remote:
            self._videos[entry.video_id] = entry.verdict


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Refuse a second run that fetches into `folder` at the same time.

    The lock belongs to the process, so that one that was killed leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two runs at once are left to the user's care
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AnymodalError(f"another run is fetching into {folder}; wait for it") from error
        yield
