"""Which files a folder holds, without opening any."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from anymodal.core.errors import AnymodalError


class FoundFile(NamedTuple):
    """A regular file."""

    path: str
    """Relative to the folder, with `/`."""
    size: int
    mtime_ns: int


@dataclass
class Scan:
    """What a folder holds."""

    files: list[FoundFile] = field(default_factory=list)
    """Sorted by path."""
    unread: dict[str, str] = field(default_factory=dict)
    """Folders and files that could not be looked at: path → why, in one line."""
    unfit: dict[str, str] = field(default_factory=dict)
    """What no index can hold: path → why, in one line."""

    def hides(self, path: str) -> bool:
        """Whether nothing is known of `path`, for it or a folder that it lies in is unread."""
        parts = path.split("/") if self.unread else []
        return any("/".join(parts[:depth]) in self.unread for depth in range(1, len(parts) + 1))


def scan(root: Path, leave_out: Path) -> Scan:
    """All files below `root` by path, but for names that begin with a dot, and for `leave_out`.

    Links to files count as the files, links to folders are not followed. Raises `AnymodalError`
    where `root` cannot be read.
    """
    result = Scan()
    left_out = os.path.realpath(leave_out)

    def failed(error: OSError) -> None:
        if Path(error.filename) == root:
            raise AnymodalError(f"{root} cannot be read: {error.strerror}") from error
        result.unread[as_utf8(_relative(root, error.filename))] = f"{error.strerror}"

    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(f"{folder}/{name}") != left_out
        ]
        for name in names:
            if not name.startswith("."):
                _add(result, _relative(root, f"{folder}/{name}"), f"{folder}/{name}")
    result.files.sort()
    return result


def as_utf8(path: str) -> str:
    """A path with the bytes that are not UTF-8 escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _add(result: Scan, path: str, full: str) -> None:
    if path != as_utf8(path):
        result.unfit[as_utf8(path)] = "its name is not valid UTF-8; rename it"
        return
    try:
        status = Path(full).stat()
    except FileNotFoundError:
        if Path(full).is_symlink():
            result.unfit[path] = "is a link to a file that does not exist"
        return  # else it was removed meanwhile
    except OSError as error:
        result.unread[path] = f"{error.strerror}"
        return
    if stat.S_ISREG(status.st_mode):
        result.files.append(FoundFile(path, status.st_size, status.st_mtime_ns))
    elif not stat.S_ISDIR(status.st_mode):
        result.unfit[path] = "is no regular file"


def _relative(root: Path, path: str) -> str:
    return Path(path).relative_to(root).as_posix()
