"""Members of tar files as media: `shards/audioset-000000.tar!0f3a….flac` names one.

Few large files travel and copy well where 300,000 small ones do not. A tar's table of contents is
read once a process and kept for as long as the file stays the same; a member is then one seek and
one read. Nothing is ever unpacked to disk. Safe to use from threads.
"""

from __future__ import annotations

import os
import tarfile
import threading
from collections import OrderedDict
from pathlib import Path

from anymodal.errors import MediaError

MARK = "!"
_SUFFIX = ".tar" + MARK
_KEPT = 64
"""Tables of contents kept; one of a 1 GB shard takes about 5 MB."""

_Contents = dict[str, tuple[int, int]]
_tables: OrderedDict[Path, tuple[tuple[int, int, int], _Contents]] = OrderedDict()
_lock = threading.Lock()


def member_path(archive: str | Path, member: str) -> str:
    """The path that names `member` of the tar file `archive`."""
    return f"{Path(archive).as_posix()}{MARK}{member}"


def split_member(path: str | Path) -> tuple[Path, str] | None:
    """(tar file, member) if the path names a member of a tar file, else None.

    Only the spelling is looked at: the part before the first `.tar!` is the tar file.
    """
    before, mark, member = str(path).partition(_SUFFIX)
    return (Path(before + ".tar"), member) if mark and member else None


def is_member(path: str | Path) -> bool:
    """Whether the path names a member of a tar file; a file that is called so comes first."""
    return split_member(path) is not None and not Path(path).exists()


def read_member(path: str | Path) -> bytes:
    """Content of the member that `path` names (`<file>.tar!<member>`).

    Raises `MediaError` if the tar file or the member is not there, or the tar is damaged.
    """
    parts = split_member(path)
    if parts is None:
        raise MediaError(f"{path}: names no member of a tar file (<file>.tar!<member>)")
    archive, member = parts
    try:
        with archive.open("rb") as file:
            place = _contents(archive, os.fstat(file.fileno())).get(member)
            if place is None:
                raise MediaError(f"{path}: the tar file holds no {member}")
            offset, size = place
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise MediaError(f"{archive}: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise MediaError(f"{archive}: is no tar file, or a damaged one ({error})") from error
    if len(content) != size:
        raise MediaError(f"{path}: the tar file ends inside this member; fetch it again")
    return content


def _contents(archive: Path, status: os.stat_result) -> _Contents:
    """Member → (offset, size) of its content; of a repeated name the last, as tar has it."""
    state = (status.st_mtime_ns, status.st_size, status.st_ino)
    with _lock:
        known = _tables.get(archive)
        if known is not None and known[0] == state:
            _tables.move_to_end(archive)
            return known[1]
        with tarfile.open(archive, "r:") as tar:
            contents = {
                entry.name: (entry.offset_data, entry.size) for entry in tar if entry.isreg()
            }
        _tables[archive] = (state, contents)
        _tables.move_to_end(archive)
        while len(_tables) > _KEPT:
            _tables.popitem(last=False)
        return contents
