"""Clips in a few large tar files, as WebDataset has them: `<clip_id>.flac`, `.jpg` and `.json`.

A shard grows as `audioset-000000.tar.partial` and is renamed once it is full. A clip is on disk
before `add` returns. However a run ends, opening the folder again keeps the whole clips of the
unfinished shard (their hash says so), cuts off the rest, and continues there. webdataset's own
ShardWriter leaves the last clip torn when killed, and truncates the shard when started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from anymodal.core import archive
from anymodal.core.errors import AnymodalError, MediaError
from anymodal.data.audioset.excerpt import Excerpt, content_id
from anymodal.data.quality import Trace

FOLDER = "shards"
_NAME = re.compile(r"audioset-(\d{6,})\.tar(\.partial)?")
_SUFFIXES = (".flac", ".jpg", ".json")


@dataclass(frozen=True)
class Stored:
    """A clip in a shard; `facts` are its .json."""

    shard: str
    clip_id: str
    facts: dict[str, Any]
    end: int
    """Byte of the shard at which it ends."""

    @property
    def key(self) -> str:
        """Which clip of the plan it is (`queue.PlannedClip.key`)."""
        return str(self.facts.get("key", ""))


class Shards:
    """The shards of a folder, of `limit` bytes at most (a larger clip gets its own)."""

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder = Path(folder)
        self._limit = limit
        self._file: BinaryIO | None = None
        self._number = 0
        self._size = 0

    def __enter__(self) -> Shards:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = sorted(each.name for each in self.folder.iterdir() if _NAME.fullmatch(each.name))
        partial = [name for name in names if name.endswith(".partial")]
        if len(partial) > 1:
            raise AnymodalError(
                f"{self.folder} holds {len(partial)} unfinished shards where one run leaves one; "
                f"remove all but {partial[-1]}"
            )
        numbers = [int(re.sub(r"\D", "", name)) for name in partial or names]
        self._number = max(numbers, default=-1) + (not partial)
        if partial:
            self._size = max((c.end for c in whole_clips(self._partial, self._name)), default=0)
            self._file = self._partial.open("r+b")
            self._file.truncate(self._size)
            self._file.seek(self._size)
            if not self._size:
                self._file.close()
                self._partial.unlink()
                self._file = None
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        # after an error the shard stays unfinished, to be resumed
        if error is None:
            self.finish()
        elif self._file:
            self._file.close()
            self._file = None

    @property
    def finished(self) -> set[str]:
        """File names of the finished shards."""
        return {each.name for each in self.folder.glob("audioset-*.tar")}

    @property
    def unfinished(self) -> str | None:
        """Name that the growing shard will have, if there is one."""
        return self._name if self._file else None

    def add(self, clip: Excerpt, facts: dict[str, Any]) -> str:
        """Append a clip and its facts; returns the name of its shard."""
        block = _block(clip, facts)
        if self._file and self._size + len(block) + tarfile.RECORDSIZE > self._limit:
            self.finish()
        if self._file is None:
            self._file = self._partial.open("wb")
            self._size = 0
        self._write(self._file, block)
        self._size += len(block)
        return self._name

    def finish(self) -> None:
        """End the growing shard, if there is one."""
        if self._file is None:
            return
        end = 2 * tarfile.BLOCKSIZE
        self._write(self._file, bytes(end + -(self._size + end) % tarfile.RECORDSIZE))
        self._file.close()
        self._partial.rename(self.folder / self._name)
        self._number += 1
        self._file, self._size = None, 0

    def clips(self, shard: str) -> Iterator[Stored]:
        """The whole clips of a shard, the growing one included, in order."""
        path = self.folder / shard
        yield from whole_clips(path if path.is_file() else self.folder / f"{shard}.partial", shard)

    @property
    def _name(self) -> str:
        return f"audioset-{self._number:06d}.tar"

    @property
    def _partial(self) -> Path:
        return self.folder / f"{self._name}.partial"

    @staticmethod
    def _write(file: BinaryIO, content: bytes) -> None:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def whole_clips(path: Path, shard: str) -> Iterator[Stored]:
    """Clips of a tar file up to the first that is not whole; a missing file has none."""
    if not path.is_file():
        return
    with contextlib.suppress(tarfile.TarError), tarfile.open(path, "r:") as tar:
        while True:
            names, parts = [], []
            for _ in _SUFFIXES:
                entry = tar.next()
                file = tar.extractfile(entry) if entry else None
                content = file.read() if file else b""
                if entry is None or len(content) != entry.size:
                    return
                names.append(entry.name)
                parts.append(content)
            clip_id = content_id(*parts[:2])
            if names != [clip_id + suffix for suffix in _SUFFIXES]:
                return
            try:
                facts = json.loads(parts[2])
            except ValueError:
                return
            end = tar.offset  # of the last member's padding, which must be there too
            if end > path.stat().st_size or not isinstance(facts, dict):
                return
            yield Stored(shard, clip_id, facts, end)


def trace(clip_id: str, audio: str | None, image: str | None) -> Trace:
    """What the shard with members `audio` and `image` says of where a clip was cut from."""
    shard = archive.split_member(audio or "")
    if audio is None or shard is None or image is None:
        return Trace(damage="its audio and image are not members of a shard")
    try:
        files = archive.read_member(audio), archive.read_member(image)
        facts = json.loads(archive.read_member(archive.member_path(shard[0], f"{clip_id}.json")))
        video_id = str(facts["video_id"])
        # the second name is that of earlier versions
        offset_s = float(facts["frame_s"]) - float(facts.get("window_s", facts.get("moment_s")))
    except MediaError as error:
        return Trace(damage=" ".join(str(error).split()))
    except (ValueError, KeyError, TypeError):
        return Trace(damage="its .json in the shard cannot be read")
    damage = None if content_id(*files) == clip_id else "its files are not those fetched"
    return Trace(video_id, round(offset_s, 6), damage)


def _block(clip: Excerpt, facts: dict[str, Any]) -> bytes:
    """A clip's three members as they are in the tar."""
    note = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
    parts = []
    for suffix, content in zip(_SUFFIXES, (clip.flac, clip.jpg, note), strict=True):
        header = tarfile.TarInfo(clip.clip_id + suffix)
        header.size = len(content)
        padding = bytes(-len(content) % tarfile.BLOCKSIZE)
        parts += [header.tobuf(tarfile.USTAR_FORMAT), content, padding]
    return b"".join(parts)
