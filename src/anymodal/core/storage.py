"""Atomic writes: a reader sees the old file or the whole new one, never a half.

Every writer goes through `atomic_path`: the content lands in a temporary file of the same folder,
is flushed to disk and renamed over the target.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` that replaces it when the block ends without error.

    Parent folders are made. On an exception the temporary file is removed and `target` stays
    as it was.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # the suffix is kept because savers such as np.save add their own when it is missing
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem}.", suffix=f".tmp{target.suffix}"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; results are meant to be shared
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that replaces it when the block ends without error.

    Parent folders are made. On an exception nothing is left and `target` stays as it was.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        new = Path(name) / "new"
        new.mkdir()
        yield new
        if target.exists():
            target.replace(Path(name) / "old")
        new.replace(target)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; numpy scalars and arrays become numbers and lists."""
    write_text(path, json.dumps(value, indent=2, default=_plain, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, without its index."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
