"""Checksums of weight files: what publishers pin, and what was seen first.

Where a publisher states no checksum, the first content that is seen is trusted and its SHA-256
kept in `<cache>/checksums.json`; from then on everything of that name must be the same:

    {"<name>": {"url": "…", "download": "<sha256>", "content": "<sha256>"}}

`download` is the file as it was fetched, `content` what lies unpacked: a file, or a folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import read_json, write_json

Part = Literal["download", "content"]
LEDGER = "checksums.json"


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Checksum (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, or over the names and contents of a folder's files.

    Hidden files count for nothing in a folder: file managers leave them there.
    """
    if not path.is_dir():
        return file_digest(path)
    total = hashlib.sha256()
    for name, file in sorted((f.relative_to(path).as_posix(), f) for f in path.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in name.split("/")):
            total.update(f"{name}\n{file_digest(file)}\n".encode())
    return total.hexdigest()


def recorded(cache: Path, name: str) -> dict[str, str]:
    """What was recorded of `name`; empty if nothing was."""
    return _ledger(cache).get(name, {})


def record(cache: Path, name: str, **facts: str) -> None:
    """Add facts of `name` (url, download, content) to the record."""
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{LEDGER}.lock"):
        ledger = _ledger(cache)
        ledger[name] = {**ledger.get(name, {}), **facts}
        write_json(cache / LEDGER, dict(sorted(ledger.items())))


def agrees(cache: Path, name: str, part: Part, sha256: str, what: str, remedy: str) -> bool:
    """Whether a checksum is the recorded one; False where none is recorded.

    Raises `AnymodalError` about `what` where it is another one; `remedy` says what to do unless
    the change is meant.
    """
    known = recorded(cache, name).get(part)
    if known is None:
        return False
    if known != sha256:
        raise AnymodalError(
            f"{what} has the SHA-256 {sha256}, not {known} as when it was first used: {remedy}; "
            f"if the change is meant, remove {name!r} from {cache / LEDGER}"
        )
    return True


def _ledger(cache: Path) -> dict[str, dict[str, str]]:
    path = cache / LEDGER
    if not path.is_file():
        return {}
    damaged = AnymodalError(f"{path} is damaged: delete it, and verify the weights beside it")
    try:
        ledger: Any = read_json(path)
    except ValueError as error:
        raise damaged from error
    if not isinstance(ledger, dict) or not all(isinstance(v, dict) for v in ledger.values()):
        raise damaged
    return ledger
