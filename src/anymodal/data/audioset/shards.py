"""Clips in few large tar files, as WebDataset has them: `<clip_id>.flac`, `.jpg` and `.json`.

A shard grows as `audioset-000000.tar.partial` and becomes `audioset-000000.tar` by a rename once
it is full, never to be touched again. A clip is appended in one write and is on disk before `add`
returns. Whatever ends a run, opening the folder again keeps the clips of the unfinished shard that
are whole (their hash says so), cuts off the rest, and goes on from there.

Headers hold nothing but name and size, so that the same clips in the same order give the same
file.
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
from types import TracebackType
from typing import Any, BinaryIO

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.excerpt import Excerpt, content_id

FOLDER = "shards"
_NAME = re.compile(r"audioset-(\d{6,})\.tar(\.partial)?")
_SUFFIXES = (".flac", ".jpg", ".json")


@dataclass(frozen=True)
class Stored:
    """A clip found in a shard."""

    shard: str
    clip_id: str
    facts: dict[str, Any]
    """Its .json."""
    end: int
    """Byte of the shard at which it ends."""

    @property
    def key(self) -> str:
        """Which clip of the plan it is (`roster.Wanted.key`)."""
        return str(self.facts.get("key", ""))


class Shards:
    """The shards of a folder; `add` needs them opened by `with`.

    folder: where they lie. limit: bytes a shard at most (a clip larger than that gets its own).
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder = Path(folder)
        self._limit = limit
        self._file: BinaryIO | None = None
        self._number = 0
        self._size = 0

    def __enter__(self) -> Shards:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [each for each in self.folder.iterdir() if _NAME.fullmatch(each.name)]
        numbers = {int(_NAME.fullmatch(each.name)[1]) for each in names}  # type: ignore[index]
        partial = sorted(each for each in names if each.suffix == ".partial")
        if len(partial) > 1:
            raise AnymodalError(
                f"{self.folder} holds {len(partial)} unfinished shards where one run leaves one; "
                f"remove all but {partial[-1].name}"
            )
        self._number = max(numbers, default=-1) + 1
        if partial:
            self._number = int(_NAME.fullmatch(partial[0].name)[1])  # type: ignore[index]
            self._resume(partial[0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # after an error the shard stays unfinished, to be gone on with
        if kind is None:
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
        self._file.write(block)
        self._flush()
        self._size += len(block)
        return self._name

    def finish(self) -> None:
        """End the growing shard, if there is one."""
        if self._file is None:
            return
        if not self._size:
            self._file.close()
            self._partial.unlink()
        else:
            end = 2 * tarfile.BLOCKSIZE
            end += -(self._size + end) % tarfile.RECORDSIZE
            self._file.write(bytes(end))
            self._flush()
            self._file.close()
            self._partial.rename(self.folder / self._name)
            _sync_folder(self.folder)
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

    def _resume(self, path: Path) -> None:
        self._size = 0
        for clip in whole_clips(path, self._name):
            self._size = clip.end
        self._file = path.open("r+b")
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def _flush(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())


def whole_clips(path: Path, shard: str) -> Iterator[Stored]:
    """Clips of a tar file up to the first that is not whole; a missing file has none."""
    if not path.is_file():
        return
    with contextlib.suppress(tarfile.TarError), tarfile.open(path, "r:") as tar:
        while True:
            parts: list[bytes] = []
            names: list[str] = []
            for _ in _SUFFIXES:
                entry = tar.next()
                if entry is None:
                    return
                file = tar.extractfile(entry)
                content = file.read() if file else b""
                if len(content) != entry.size:
                    return
                names.append(entry.name)
                parts.append(content)
            clip_id = content_id(parts[0], parts[1])
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


def _block(clip: Excerpt, facts: dict[str, Any]) -> bytes:
    """A clip's three members as they stand in the tar."""
    told = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
    parts = []
    for suffix, content in zip(_SUFFIXES, (clip.flac, clip.jpg, told), strict=True):
        header = tarfile.TarInfo(clip.clip_id + suffix)
        header.size = len(content)
        parts += [header.tobuf(tarfile.USTAR_FORMAT), content]
        parts.append(bytes(-len(content) % tarfile.BLOCKSIZE))
    return b"".join(parts)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
