"""From files to vectors: threads hash and decode ahead while the calling thread embeds."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class ReadFile:
    """A file that was read: known content, decoded content, or an error."""

    entry: Entry
    """Without vectors."""
    item: SegmentedItem | None = None
    """None where the content is known already, or there is an error."""

    @property
    def held(self) -> int:
        """Bytes of decoded media."""
        windows = self.item.windows if self.item else ()
        return sum(
            array.nbytes for w in windows for array in (w.audio, w.image) if array is not None
        )


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
    ahead = BATCH + workers
    for file in decode_ahead(files, read, workers, ahead, lambda result: result.held, HELD):
        batch.append(file)
        if len(batch) >= BATCH or sum(r.held for r in batch) >= HELD:
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
            known_kind = "" if isinstance(error, AnymodalError) else f"{type(error).__name__}: "
            entry = replace(entry, error=known_kind + _reason(error, path))
        status = path.stat()
    except OSError as error:
        # tried again next time
        return ReadFile(replace(entry, size=None, error=error.strerror or _reason(error, path)))
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        changed = "changed while it was read; index again"
        return ReadFile(replace(entry, size=None, sha256=None, error=changed))
    return ReadFile(entry, item)


def _reason(error: BaseException, path: Path) -> str:
    """The message in one line, without the path in front."""
    return one_line(error).removeprefix(f"{' '.join(str(path).split())}: ")


def _embed(batch: list[ReadFile], classifier: ModalityAgnosticClassifier) -> list[Entry]:
    # of one content in the batch the first is embedded, and the caller gives the others its vectors
    first: dict[str | None, int] = {}
    for place, file in enumerate(batch):
        if file.item is not None:
            first.setdefault(file.entry.sha256, place)
    items = {place: item for place in first.values() if (item := batch[place].item) is not None}
    entries = [file.entry for file in batch]
    for place, result in zip(items, _vectors([*items.values()], classifier), strict=True):
        if isinstance(result, str):
            entries[place] = replace(entries[place], kind="", seconds=0.0, error=result)
        else:
            entries[place] = replace(entries[place], vectors=result)
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
    return [_checked(row) for row in rows]


def _checked(row: dict[Modality, np.ndarray]) -> dict[Modality, np.ndarray] | str:
    if not row:
        return "neither audio nor image can be decoded"
    for modality, vector in row.items():
        if not np.isfinite(vector).all():
            return f"its {modality} embedding is not finite"
    return row
