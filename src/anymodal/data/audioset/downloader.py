"""Where a clip's video comes from, behind one small interface."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.ffmpeg import Input, cut, find_ffmpeg
from anymodal.data.audioset.status import FetchError, Status
from anymodal.data.folder import walk

_SUFFIXES = tuple(".mp4 .m4v .mov .mkv .webm .avi .flv .3gp .mpg .mpeg .ts .wmv .ogv".split())  # noqa: SIM905


class Downloader(Protocol):
    """A source of videos. `fetch` is called from several threads at once."""

    name: str
    """Recorded in the ledger."""
    remote: bool
    """Whether another attempt can help, and whether what is gone stays gone."""

    def fetch(self, video_id: str, start_s: float, duration_s: float, into: Path) -> Path:
        """Get [start_s, start_s + duration_s) of a video, or what there is of it, into `into`.

        Returns a media file whose time 0 is `start_s`, or raises `FetchError`, within a time limit.
        """
        ...


class LocalDownloader:
    """Videos that are already on disk, in `folder` or below it: `--local DIR`.

    `<YTID>.<ext>` is the whole video; `<YTID>_<start>.<ext>` and `<YTID>_<start>_<end>.<ext>` (or
    `-` before the end) are the part from <start> on, in seconds, or in milliseconds where seconds
    make no sense.
    """

    name = "local"
    remote = False

    def __init__(self, folder: str | Path, *, timeout_s: float = 120.0) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise AnymodalError(f"no folder at {self.folder}; --local takes one with videos")
        self._timeout_s = timeout_s
        self._ffmpeg = find_ffmpeg()
        self._files = _index(self.folder)
        if not self._files:
            raise AnymodalError(
                f"no videos in {self.folder}; expected <YTID>.mp4 or <YTID>_<start>.mp4 "
                "(or other common types)"
            )

    def fetch(self, video_id: str, start_s: float, duration_s: float, into: Path) -> Path:
        """See `Downloader`."""
        files = self._files.get(video_id, [])
        if not files:
            raise FetchError(Status.ABSENT, f"no video {video_id} in {self.folder}")
        for path, file_start in files:
            offset = _offset(file_start, start_s)
            if offset is not None:
                # `file:` keeps names with a colon or a leading dash from being read otherwise
                inputs = [Input(f"file:{path.resolve()}")]
                limits = {"timeout_s": self._timeout_s, "stall_s": self._timeout_s}
                return cut(inputs, offset, duration_s, into, **limits, ffmpeg=self._ffmpeg)
        raise FetchError(Status.ABSENT, f"{files[0][0].name} starts after {start_s:g} s")


_STRETCH = re.compile(r"(?P<id>.+)_(?P<start>\d+(\.\d+)?)")
_STRETCH_TO = re.compile(r"(?P<id>.+)_(?P<start>\d+(\.\d+)?)[_-]\d+(\.\d+)?")


def _index(folder: Path) -> dict[str, list[tuple[Path, float | None]]]:
    """Video id → its files and the time at which each starts; None for the whole video, first."""
    files: dict[str, list[tuple[Path, float | None]]] = {}
    for path in sorted(walk(folder)):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        files.setdefault(path.stem, []).append((path, None))
        # ids may hold underscores and end in digits: every reading of the name is kept
        for pattern in (_STRETCH, _STRETCH_TO):
            if match := pattern.fullmatch(path.stem):
                files.setdefault(match["id"], []).append((path, float(match["start"])))
    for of_video in files.values():
        of_video.sort(key=lambda each: each[1] is not None)
    return files


def _offset(file_start: float | None, start_s: float) -> float | None:
    """Where in a file `start_s` lies; None if before its start."""
    if file_start is None:
        return start_s
    for seconds in (file_start, file_start / 1000):
        if seconds <= start_s + 1e-6:
            return max(0.0, start_s - seconds)
    return None
