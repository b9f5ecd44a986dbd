"""Members of tar files, named by paths such as `shards/audioset-000000.tar!0f3a….flac`.

A tar's table of contents is read once per process and kept while the file stays the same; a member
is then one seek and one read, and nothing is unpacked to disk. Safe to use from threads.
"""

from __future__ import annotations

import os
import tarfile
import threading
from functools import lru_cache
from pathlib import Path

from anymodal.core.errors import MediaError

MARK = "!"
_SUFFIX = ".tar" + MARK
_lock = threading.Lock()


def member_path(archive: str | Path, member: str) -> str:
    """Return the path that names `member` of the tar file `archive`."""
    return f"{Path(archive).as_posix()}{MARK}{member}"


def split_member(path: str | Path) -> tuple[Path, str] | None:
    """(tar file, member) if the path is spelt as that of a member, split at the first `.tar!`."""
    before, mark, member = str(path).partition(_SUFFIX)
    return (Path(before + ".tar"), member) if mark and member else None


def is_member(path: str | Path) -> bool:
    """Whether the path names a member of a tar file; an existing file of that name does not."""
    return split_member(path) is not None and not Path(path).exists()


def read_member(path: str | Path) -> bytes:
    """Read the member that `path` names.

    Raises `MediaError` if the tar file or the member is missing, or the tar is damaged.
    """
    parts = split_member(path)
    if parts is None:
        raise MediaError(f"{path}: names no member of a tar file (<file>.tar!<member>)")
    archive, member = parts
    try:
        with archive.open("rb") as file:
            status = os.fstat(file.fileno())
            with _lock:  # no table is read twice
                contents = _contents(archive, status.st_mtime_ns, status.st_size, status.st_ino)
            if member not in contents:
                raise MediaError(f"{path}: the tar file holds no {member}")
            offset, size = contents[member]
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise MediaError(f"{archive}: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise MediaError(f"{archive}: is no tar file, or a damaged one ({error})") from error
    if len(content) != size:
        raise MediaError(f"{path}: the tar file ends inside this member; fetch it again")
    return content


@lru_cache(maxsize=64)
def _contents(archive: Path, *_state: int) -> dict[str, tuple[int, int]]:
    """Member → (offset, size); of a repeated name the last, as tar has it."""
    with tarfile.open(archive, "r:") as tar:
        return {entry.name: (entry.offset_data, entry.size) for entry in tar if entry.isreg()}
