"""Engines: who decodes the media and runs the network, and in which order results come back.

An engine is given an encoder and a list of items and yields one `ChunkResult` for each run of
`chunk` items. Chunks may come in any order; each is whole. Bookkeeping (what is new, what is
saved, resuming) is not an engine's business but `anymodal.embeddings.extraction`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS, Modality
from anymodal.embeddings.ahead import decode_ahead
from anymodal.encoders.base import Encoder, PreparingEncoder
from anymodal.media import decoding


class Item(NamedTuple):
    """One clip as an encoder of one modality needs it."""

    clip_id: str
    path: str
    start_s: float
    """Seconds into the file."""


class InputSpec(NamedTuple):
    """What decoding must know of an encoder."""

    name: str
    modality: Modality
    sample_rate: int | None
    prepare: Callable[[np.ndarray], np.ndarray] | None = None
    """Done to what was decoded, so that `embed_prepared` may take it; None: nothing."""

    @staticmethod
    def of(
        encoder: Encoder, prepare: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> InputSpec:
        """What `encoder` states of it."""
        # whatever else it states, an image has no rate
        rate = encoder.sample_rate if encoder.modality == "audio" else None
        return InputSpec(encoder.name, encoder.modality, rate, prepare)


class ChunkResult(NamedTuple):
    """Embeddings of items [number * chunk, (number + 1) * chunk)."""

    number: int
    matrix: np.ndarray
    """float32 (items that could be embedded, dim), in the order of the items."""
    errors: list[str | None]
    """One entry an item: why it could not be embedded, or None."""


class BatchResult(NamedTuple):
    """The same of one batch."""

    number: int
    matrix: np.ndarray
    errors: list[str | None]


class Engine(Protocol):
    """Decodes and embeds items."""

    def __call__(
        self, encoder: Encoder, items: Sequence[Item], batch_size: int, chunk: int
    ) -> Iterator[ChunkResult]:
        """Yield every chunk of `items` once.

        Batches are consecutive runs of `batch_size` items within a chunk, so that the same items
        meet in the same batch in every run. An item that cannot be decoded or embedded is reported
        in `errors`, never raised.
        """
        ...


@dataclass(frozen=True)
class Batches:
    """Runs of `size` items within chunks, numbered through."""

    items: int
    size: int
    chunk: int

    @property
    def batches_per_chunk(self) -> int:
        """Batches of a full chunk."""
        return -(-self.chunk // self.size)

    @property
    def count(self) -> int:
        """Batches of all items."""
        full, rest = divmod(self.items, self.chunk)
        return full * self.batches_per_chunk - (-rest // self.size)

    def span(self, number: int) -> tuple[int, int]:
        """First item of a batch, and the one after its last."""
        chunk, batch = divmod(number, self.batches_per_chunk)
        start = chunk * self.chunk + batch * self.size
        return start, min(start + self.size, (chunk + 1) * self.chunk, self.items)

    def of_chunk(self, chunk: int) -> range:
        """Numbers of a chunk's batches."""
        first = chunk * self.batches_per_chunk
        return range(first, min(first + self.batches_per_chunk, self.count))

    def whole_chunks(self, results: Iterable[BatchResult]) -> Iterator[ChunkResult]:
        """Chunks, each as soon as the last of its batches is there."""
        waiting: dict[int, dict[int, BatchResult]] = {}
        for result in results:
            chunk = result.number // self.batches_per_chunk
            done = waiting.setdefault(chunk, {})
            done[result.number] = result
            if len(done) == len(self.of_chunk(chunk)):
                whole = [done[number] for number in self.of_chunk(chunk)]
                del waiting[chunk]
                matrix = np.concatenate([part.matrix for part in whole])
                yield ChunkResult(chunk, matrix, [e for part in whole for e in part.errors])


@dataclass(frozen=True)
class LocalEngine:
    """This process: threads decode and prepare ahead while the calling thread computes.

    At most 2 * batch_size + workers decoded items are held at a time.
    """

    workers: int = 2
    """Threads that decode and prepare."""

    def __call__(
        self, encoder: Encoder, items: Sequence[Item], batch_size: int, chunk: int
    ) -> Iterator[ChunkResult]:
        """See `Engine`; chunks come in order."""
        batches = Batches(len(items), batch_size, chunk)
        yield from batches.whole_chunks(self._results(encoder, items, batches))

    def _results(
        self, encoder: Encoder, items: Sequence[Item], batches: Batches
    ) -> Iterator[BatchResult]:
        # in one process preparing may share the encoder
        prepare = encoder.prepare if isinstance(encoder, PreparingEncoder) else None
        read = partial(decode, medium=InputSpec.of(encoder, prepare))
        decoded = decode_ahead(items, read, self.workers, batches.size + self.workers)
        with closing(decoded):
            for number in range(batches.count):
                start, stop = batches.span(number)
                batch = list(islice(decoded, stop - start))
                yield BatchResult(
                    number, *embed_batch(encoder, batch, prepared=prepare is not None)
                )


def decode(item: Item, medium: InputSpec) -> np.ndarray | str:
    """The item as an encoder of `medium` takes it, or why it cannot be read, in one line."""
    if medium.modality == "audio" and medium.sample_rate is None:
        raise AnymodalError(f"audio encoder {medium.name} states no sample rate")
    try:
        decoded = _load(item, medium.sample_rate)
        if not decoded.size:
            return f"no audio at {item.start_s:g} s"
        return medium.prepare(decoded) if medium.prepare else decoded
    except MemoryError:
        raise
    except AnymodalError as error:
        return one_line(error)
    # decoders raise whatever they like on a broken file, and one file must not end the run
    except Exception as error:
        return f"{type(error).__name__}: {one_line(error)}"


def _load(item: Item, sample_rate: int | None) -> np.ndarray:
    if sample_rate is not None:
        return decoding.load_audio(item.path, sample_rate, item.start_s, WINDOW_SECONDS)
    if decoding.sniff(item.path) == "video":
        return decoding.load_frame(item.path, item.start_s)
    return decoding.load_image(item.path)


def embed_batch(
    encoder: Encoder, decoded: Sequence[np.ndarray | str], *, prepared: bool = False
) -> tuple[np.ndarray, list[str | None]]:
    """Embed what was decoded, and prepared if so; strings are errors and are passed through.

    Returns the matrix (items that could be embedded, dim) and one error or None an item. When the
    encoder refuses the batch its items are tried one by one, so that one of them cannot take the
    others along.
    """
    errors = [item if isinstance(item, str) else None for item in decoded]
    arrays = {i: item for i, item in enumerate(decoded) if not isinstance(item, str)}
    rows: Iterable[np.ndarray | str] = _embed(encoder, [*arrays.values()], prepared)
    if isinstance(rows, str):
        each = (_embed(encoder, [array], prepared) for array in arrays.values())
        rows = [row if isinstance(row, str) else row[0] for row in each]
    kept = []
    for position, row in zip(arrays, rows, strict=True):
        if isinstance(row, str):
            errors[position] = row
        elif np.isfinite(row).all():
            kept.append(row)
        else:
            errors[position] = "its embedding is not finite"
    return np.array(kept, dtype=np.float32).reshape(len(kept), encoder.dim), errors


def _embed(encoder: Encoder, arrays: Sequence[np.ndarray], prepared: bool) -> np.ndarray | str:
    """Embeddings, or why the encoder cannot take one of the items."""
    if not arrays:
        return np.empty((0, encoder.dim), np.float32)
    try:
        if prepared and isinstance(encoder, PreparingEncoder):
            matrix = encoder.embed_prepared(arrays)
        else:
            matrix = encoder.embed(arrays)
    except (AnymodalError, ValueError) as error:
        return one_line(error)
    if matrix.shape != (len(arrays), encoder.dim):
        raise AnymodalError(
            f"encoder {encoder.name} gave an array {matrix.shape} for {len(arrays)} item(s) of "
            f"dim {encoder.dim}; its `dim` or its `embed` is wrong"
        )
    return matrix


def one_line(error: BaseException) -> str:
    """The message of an exception, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
