"""Which files a folder holds, without opening any."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from anymodal.core.errors import AnymodalError


class Seen(NamedTuple):
    """A regular file."""

    path: str
    """Relative to the folder, with `/`."""
    size: int
    mtime_ns: int


@dataclass
class Scan:
    """What was found."""

    files: list[Seen] = field(default_factory=list)
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
    where `root` is no folder that can be read.
    """
    if not root.is_dir():
        raise AnymodalError(f"{root} is no folder; give the folder of media to index")
    found = Scan()
    left_out = os.path.realpath(leave_out)

    def failed(error: OSError) -> None:
        if Path(error.filename) == root:
            raise AnymodalError(f"{root} cannot be read: {error.strerror}") from error
        found.unread[shown(_relative(root, error.filename))] = f"{error.strerror}"

    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) != left_out  # noqa: PTH118
        )
        for name in names:
            if not name.startswith("."):
                _add(found, _relative(root, f"{folder}/{name}"), f"{folder}/{name}")
    found.files.sort()
    return found


def shown(path: str) -> str:
    """A path as UTF-8 can tell it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def blocks(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """The content of a file in pieces."""
    with path.open("rb") as file:
        while block := file.read(size):
            yield block


def _add(found: Scan, path: str, full: str) -> None:
    if path != shown(path):
        found.unfit[shown(path)] = "its name is not valid UTF-8; rename it"
        return
    try:
        status = Path(full).stat()
    except FileNotFoundError:
        if Path(full).is_symlink():
            found.unfit[path] = "is a link to a file that does not exist"
        return  # else removed while we looked
    except OSError as error:
        found.unread[path] = f"{error.strerror}"
        return
    if stat.S_ISREG(status.st_mode):
        found.files.append(Seen(path, status.st_size, status.st_mtime_ns))
    elif not stat.S_ISDIR(status.st_mode):
        found.unfit[path] = "is no regular file"


def _relative(root: Path, path: str) -> str:
    return Path(path).relative_to(root).as_posix()
