"""From files to vectors: threads hash and decode ahead while the calling thread embeds."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.media import decoding
from anymodal.media.segmentation import Limits, SegmentedItem, segment
from anymodal.search.entries import Entry
from anymodal.search.scan import Seen, blocks

if TYPE_CHECKING:
    from anymodal.search.identity import Embedder

BATCH = 32
"""Files embedded at once, at most."""
HELD = 256 << 20
"""Bytes of decoded media in a batch, and as many ahead of it, before no more is decoded."""


@dataclass(frozen=True)
class Read:
    """A file that was read: known content, decoded content, or an error."""

    entry: Entry
    """Without vectors."""
    windows: SegmentedItem | None = None
    """None where the content is known already, or there is an error."""

    @property
    def held(self) -> int:
        """Bytes of decoded media."""
        parts = self.windows.windows if self.windows else ()
        return sum(array.nbytes for m in parts for array in (m.audio, m.image) if array is not None)


def embedded(
    root: Path,
    files: Iterable[Seen],
    classifier: Embedder,
    limits: Limits,
    known: Container[str],
    workers: int = 2,
) -> Iterator[list[Entry]]:
    """Every file's entry, in the order given, in lists as they are finished.

    An entry with neither vectors nor an error is of content whose SHA-256 is in `known`, which the
    caller may add to, or of the same content as an earlier entry of its list.
    """
    read = partial(read_file, root, rate=classifier.sample_rate, limits=limits, known=known)
    batch: list[Read] = []
    for one in _ahead(files, read, workers):
        batch.append(one)
        if len(batch) >= BATCH or sum(r.held for r in batch) >= HELD:
            yield _embed(batch, classifier)
            batch = []
    if batch:
        yield _embed(batch, classifier)


def read_file(root: Path, seen: Seen, rate: int, limits: Limits, known: Container[str]) -> Read:
    """Hash and decode one file; never raises for what the file is or holds."""
    path = root / seen.path
    entry = Entry(seen.path, seen.size, seen.mtime_ns, None)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        # no fault of the content: tried again next time
        return Read(replace(entry, size=None, error=error.strerror or str(error)))
    try:
        decoding.sniff(path)  # so that what is no medium is not read to its end
        digest = hashlib.sha256()
        for block in blocks(path):
            digest.update(block)
        entry = replace(entry, sha256=digest.hexdigest())
        if entry.sha256 in known:
            return _settled(path, seen, Read(entry))
        taken = segment(path, rate, limits)
        entry = replace(entry, kind=taken.kind, seconds=taken.seconds)
        return _settled(path, seen, Read(entry, taken))
    except MemoryError:
        raise
    except OSError as error:
        return Read(replace(entry, size=None, error=one_line(error, path)))
    # decoders raise whatever they like on a broken file, and one file must not end the run
    except Exception as error:
        told = one_line(error, path)
        if not isinstance(error, AnymodalError):
            told = f"{type(error).__name__}: {told}"
        return _settled(path, seen, Read(replace(entry, error=told)))


def one_line(error: BaseException, path: Path) -> str:
    """The message without line breaks and without the path in front."""
    told = " ".join(str(error).split()) or type(error).__name__
    return told.removeprefix(f"{' '.join(str(path).split())}: ")


def _settled(path: Path, seen: Seen, read: Read) -> Read:
    """`read`, unless the file was written to meanwhile."""
    try:
        status = path.stat()
    except OSError as error:
        return Read(replace(read.entry, size=None, error=error.strerror or str(error)))
    if (status.st_size, status.st_mtime_ns) == (seen.size, seen.mtime_ns):
        return read
    told = "changed while it was read; index again"
    return Read(replace(read.entry, size=None, sha256=None, error=told))


def _ahead(files: Iterable[Seen], read: Callable[[Seen], Read], workers: int) -> Iterator[Read]:
    upcoming = iter(files)
    waiting: deque[Future[Read]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")

    def fill() -> None:
        while len(waiting) < BATCH + workers:
            if sum(future.result().held for future in waiting if future.done()) >= HELD:
                return
            seen = next(upcoming, None)
            if seen is None:
                return
            waiting.append(pool.submit(read, seen))

    try:
        fill()
        while waiting:
            one = waiting.popleft().result()
            fill()
            yield one
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _embed(batch: list[Read], classifier: Embedder) -> list[Entry]:
    # of one content in the batch the first is embedded, and the caller gives the others its vectors
    first: dict[str | None, int] = {}
    for place, one in enumerate(batch):
        if one.windows is not None:
            first.setdefault(one.entry.sha256, place)
    places = sorted(first.values())
    taken = [windows for place in places if (windows := batch[place].windows) is not None]
    entries = [one.entry for one in batch]
    for place, found in zip(places, _vectors(taken, classifier), strict=True):
        if isinstance(found, str):
            entries[place] = replace(entries[place], kind="", seconds=0.0, error=found)
        else:
            entries[place] = replace(entries[place], vectors=found)
    return entries


def _vectors(
    taken: list[SegmentedItem], classifier: Embedder
) -> list[dict[Modality, np.ndarray] | str]:
    """Vectors of every item, or why there are none."""
    try:
        rows = classifier.embed_windows(taken) if taken else []
    except (AnymodalError, ValueError) as error:
        if len(taken) == 1:
            return [one_line(error, Path(taken[0].item))]
        # the one that is at fault must not take the others along
        return [found for one in taken for found in _vectors([one], classifier)]
    return [_checked(row) for row in rows]


def _checked(row: dict[Modality, np.ndarray]) -> dict[Modality, np.ndarray] | str:
    if not row:
        return "neither sound nor picture can be decoded"
    found = {}
    for modality, vector in row.items():
        exact = np.asarray(vector, dtype=np.float64)
        if not np.isfinite(exact).all():
            return f"its {modality} embedding is not finite"
        length = float(np.linalg.norm(exact))
        if abs(length - 1) > 1e-6:
            exact = exact / (length or 1.0)
        found[modality] = exact.astype(np.float32)
    return found
