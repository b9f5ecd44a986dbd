"""One writer at a time, between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from anymodal.core.errors import AnymodalError


@contextmanager
def exclusive(path: Path, refusal: str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`, whose folder is made; -1 s waits for as long as it takes.

    The lock dies with its process. Raises `AnymodalError(refusal)` when another process, or
    another thread of this one, still holds it after `timeout_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=timeout_s, is_singleton=False, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise AnymodalError(refusal) from None
    try:
        yield
    finally:
        lock.release()
