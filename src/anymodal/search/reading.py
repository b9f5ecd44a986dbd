"""From files to vectors: threads hash and decode ahead while the calling thread embeds."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.embeddings.ahead import decode_ahead
from anymodal.embeddings.engines import one_line
from anymodal.media import decoding
from anymodal.media.segmentation import Limits, SegmentedItem, segment
from anymodal.search.scan import FoundFile
from anymodal.search.store import Entry

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier

BATCH = 32
"""Files embedded at once, at most."""
HELD = 256 << 20
"""Bytes of decoded media in a batch, and as many ahead of it, before no more is decoded."""

ReadFile = tuple[Entry, SegmentedItem | None]
"""A file's entry without vectors, and its windows unless its content is known or it is broken."""


def embedded(
    root: Path,
    files: Iterable[FoundFile],
    classifier: ModalityAgnosticClassifier,
    limits: Limits,
    known: Container[str],
    workers: int = 2,
) -> Iterator[list[Entry]]:
    """Every file's entry, in the order given, in lists as they are finished.

    An entry with neither vectors nor an error is of content whose SHA-256 is in `known`, which the
    caller may add to, or of the same content as an earlier entry of its list.
    """
    read = partial(read_file, root, rate=classifier.sample_rate, limits=limits, known=known)
    batch: list[ReadFile] = []
    for file in decode_ahead(files, read, workers, BATCH + workers, _held, HELD):
        batch.append(file)
        if len(batch) >= BATCH or sum(map(_held, batch)) >= HELD:
            yield _embed(batch, classifier)
            batch = []
    if batch:
        yield _embed(batch, classifier)


def read_file(
    root: Path, file: FoundFile, rate: int, limits: Limits, known: Container[str]
) -> ReadFile:
    """Hash and decode one file; never raises for what the file is or holds."""
    path = root / file.path
    entry = Entry(file.path, file.size, file.mtime_ns, None)
    item = None
    try:
        path.open("rb").close()  # what cannot be opened is no fault of the content
        try:
            decoding.sniff(path)  # what is no medium is not read to its end
            with path.open("rb") as content:
                entry = replace(entry, sha256=hashlib.file_digest(content, "sha256").hexdigest())
            if entry.sha256 not in known:
                item = segment(path, rate, limits)
                entry = replace(entry, kind=item.kind, seconds=item.seconds)
        except (MemoryError, OSError):
            raise
        # decoders raise whatever they like on a broken file, and one file must not end the run
        except Exception as error:
            kind = "" if isinstance(error, AnymodalError) else f"{type(error).__name__}: "
            entry = replace(entry, error=kind + _reason(error, path))
        status = path.stat()
    except OSError as error:
        reason = error.strerror or _reason(error, path)
        return replace(entry, size=None, sha256=None, error=reason), None  # tried again next time
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        changed = "changed while it was read; index again"
        return replace(entry, size=None, sha256=None, error=changed), None
    return entry, item


def _held(file: ReadFile) -> int:
    """Bytes of decoded media."""
    windows = file[1].windows if file[1] else ()
    return sum(array.nbytes for w in windows for array in (w.audio, w.image) if array is not None)


def _reason(error: BaseException, path: Path) -> str:
    """The message in one line, without the path in front."""
    return one_line(error).removeprefix(f"{' '.join(str(path).split())}: ")


def _embed(batch: list[ReadFile], classifier: ModalityAgnosticClassifier) -> list[Entry]:
    entries = [entry for entry, _ in batch]
    # of one content in the batch the first is embedded, and the caller gives the others its vectors
    items: dict[str | None, tuple[int, SegmentedItem]] = {}
    for place, (entry, item) in enumerate(batch):
        if item is not None:
            items.setdefault(entry.sha256, (place, item))
    results = _vectors([item for _, item in items.values()], classifier)
    for (place, _), result in zip(items.values(), results, strict=True):
        if isinstance(result, str):
            entries[place] = replace(entries[place], kind="", seconds=0.0, error=result)
        else:
            vectors: dict[str, Any] = {
                m: vector.astype("<f4").tobytes() for m, vector in result.items()
            }
            entries[place] = replace(entries[place], **vectors)
    return entries


def _vectors(
    items: list[SegmentedItem], classifier: ModalityAgnosticClassifier
) -> list[dict[Modality, np.ndarray] | str]:
    """Vectors of every item, or why there are none."""
    try:
        rows = classifier.embed_windows(items) if items else []
    except (AnymodalError, ValueError) as error:
        if len(items) == 1:
            return [_reason(error, Path(items[0].item))]
        # the item that is at fault must not take the others along
        return [result for item in items for result in _vectors([item], classifier)]
    finite = (all(np.isfinite(vector).all() for vector in row.values()) for row in rows)
    return [
        row if row and good else "its embedding is not finite" if row else "has no audio or image"
        for row, good in zip(rows, finite, strict=True)
    ]
