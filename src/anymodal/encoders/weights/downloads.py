"""One file over HTTP, whole or not at all: pooch with retries, and what it leaves to its callers.

pooch checks the checksum, if there is one. Added here: a file shorter than announced is refused,
so is a web page in place of a file; an answer that will not change (404) is not asked for again;
progress is shown on a terminal.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch
import requests

from anymodal.core.errors import AnymodalError

RETRIES = 2
"""Further tries after the first; pooch waits one second before the first of them, then two."""
TIMEOUT_SECONDS = 30
"""Silence on the line after which a try has failed."""
_MAY_PASS = (408, 425, 429)
"""Answers of the 400s after which another try makes sense."""


def download(url: str, target: Path, known_hash: str | None) -> None:
    """Write what `url` gives to `target`, which does not exist yet, in a folder that does.

    Parameters
    ----------
    known_hash: `md5:<hex>`, `sha256:<hex>`, or None.

    Raises
    ------
    AnymodalError: the reason in a few words; OSError: the disk refuses a write.
    """
    keeper = pooch.create(
        path=target.parent,
        base_url="",
        registry={target.name: known_hash},
        urls={target.name: url},
        retry_if_failed=RETRIES,
    )
    try:
        with _quiet_pooch():
            keeper.fetch(target.name, downloader=_fetch)
    except requests.RequestException as error:
        raise AnymodalError(_reason(error)) from error
    except ValueError as error:  # how pooch tells of a wrong checksum, and of an unknown protocol
        if known_hash and "hash" in str(error):
            raise AnymodalError(f"what came has not the checksum {known_hash}") from error
        raise AnymodalError(" ".join(str(error).split())) from error


def _fetch(url: str, output_file: str, keeper: Any) -> None:
    """A downloader as pooch calls it."""
    bar = _Bar(url.rpartition("/")[2].partition("?")[0])
    try:
        pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=1 << 16,
            timeout=TIMEOUT_SECONDS,
            # an encoding on the way would make the announced length that of something else
            headers={"Accept-Encoding": "identity"},
        )(url, output_file, keeper)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if 400 <= status < 500 and status not in _MAY_PASS:
            raise AnymodalError(_reason(error)) from error
        raise
    finally:
        bar.close()
    path = Path(output_file)
    size = path.stat().st_size
    if size < bar.total or not size:
        raise requests.ConnectionError(f"the connection ended after {size} of {bar.total} bytes")
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise requests.ConnectionError("a web page came in place of the file")


class _Bar:
    """What pooch takes for a progress bar: keeps the announced length; draws on a terminal."""

    def __init__(self, title: str) -> None:
        self.total = 0  # pooch sets it
        self._title = title
        self._drawn: Any = None

    def update(self, count: int) -> None:
        if self._drawn is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._drawn = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._drawn.start()
            self._drawn.add_task(self._title, total=self.total or None)
        if self._drawn is not None:
            self._drawn.advance(self._drawn.task_ids[0], count)

    def reset(self) -> None:
        if self._drawn is not None:
            self._drawn.reset(self._drawn.task_ids[0])

    def close(self) -> None:
        if self._drawn is not None:
            self._drawn.stop()


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """pooch tells of temporary files, which is of no use to anybody who reads it."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: requests.RequestException) -> str:
    """What went wrong, without the layers of libraries that it came through."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    inner: Any = error.args[0] if error.args else error
    inner = getattr(inner, "reason", None) or inner
    if isinstance(inner, Exception) and inner.args and isinstance(inner.args[0], str):
        inner = inner.args[0]
    return " ".join(str(inner).split())
