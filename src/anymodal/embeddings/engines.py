"""Engines: who decodes the media and runs the network, and in which order results come back.

An engine is given an encoder and a list of items and yields one `ChunkResult` for each run of
`chunk` items. Chunks may come in any order; each is whole. Bookkeeping (what is new, what is
saved, resuming) is not an engine's business but `anymodal.embeddings.extraction`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS, Modality
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
        # whatever else it states, a picture has no rate
        rate = encoder.sample_rate if encoder.modality == "audio" else None
        return InputSpec(encoder.name, encoder.modality, rate, prepare)


class ChunkResult(NamedTuple):
    """Embeddings of items [number * chunk, (number + 1) * chunk)."""

    number: int
    matrix: np.ndarray
    """float32 (items that could be embedded, dim), in the order of the items."""
    errors: list[str | None]
    """One entry an item: why it could not be embedded, or None."""


class Engine(Protocol):
    """Decodes and embeds items."""

    def __call__(
        self, encoder: Encoder, items: Sequence[Item], batch_size: int, chunk: int
    ) -> Iterator[ChunkResult]:
        """Yield every chunk of `items` once.

        Batches are consecutive runs of `batch_size` items within a chunk, so that the same items
        meet in the same batch in every run. An item that cannot be decoded or embedded is told in
        `errors`, never raised.
        """
        ...


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
        waiting: deque[Future[np.ndarray | str]] = deque()
        upcoming = iter(items)
        # in one process preparing may share the encoder
        prepare = encoder.prepare if isinstance(encoder, PreparingEncoder) else None
        medium = InputSpec.of(encoder, prepare)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")

        def ahead() -> None:
            while len(waiting) < batch_size + self.workers:
                item = next(upcoming, None)
                if item is None:
                    return
                waiting.append(pool.submit(decode, item, medium))

        def take() -> np.ndarray | str:
            ahead()
            decoded = waiting.popleft().result()
            ahead()
            return decoded

        try:
            for number, start in enumerate(range(0, len(items), chunk)):
                size = min(chunk, len(items) - start)
                matrices: list[np.ndarray] = []
                errors: list[str | None] = []
                for begin in range(0, size, batch_size):
                    batch = [take() for _ in range(min(batch_size, size - begin))]
                    matrix, batch_errors = embed_batch(
                        encoder, batch, prepared=medium.prepare is not None
                    )
                    matrices.append(matrix)
                    errors += batch_errors
                yield ChunkResult(number, np.concatenate(matrices), errors)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def decode(item: Item, medium: InputSpec) -> np.ndarray | str:
    """The item as an encoder of `medium` takes it, or why it cannot be read, in one line."""
    if medium.modality == "audio" and medium.sample_rate is None:
        raise AnymodalError(f"audio encoder {medium.name} states no sample rate")
    try:
        decoded = _load(item, medium.sample_rate)
        if not decoded.size:
            return f"no sound at {item.start_s:g} s"
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
    good = [i for i, item in enumerate(decoded) if not isinstance(item, str)]
    arrays = [item for item in decoded if not isinstance(item, str)]
    rows: list[np.ndarray] = []
    if arrays:
        try:
            rows = list(_embed(encoder, arrays, prepared))
        except _Refused:
            for position, array in zip(good, arrays, strict=True):
                try:
                    rows += list(_embed(encoder, [array], prepared))
                except _Refused as refusal:
                    errors[position] = one_line(refusal)
            good = [i for i in good if errors[i] is None]
    kept = []
    for position, row in zip(good, rows, strict=True):
        if np.isfinite(row).all():
            kept.append(row)
        else:
            errors[position] = "its embedding is not finite"
    return np.array(kept, dtype=np.float32).reshape(len(kept), encoder.dim), errors


class _Refused(Exception):
    """The encoder cannot take one of the items."""


def _embed(encoder: Encoder, arrays: Sequence[np.ndarray], prepared: bool) -> np.ndarray:
    try:
        if prepared and isinstance(encoder, PreparingEncoder):
            matrix = encoder.embed_prepared(arrays)
        else:
            matrix = encoder.embed(arrays)
    except (AnymodalError, ValueError) as error:
        raise _Refused(one_line(error)) from error
    if matrix.shape != (len(arrays), encoder.dim):
        raise AnymodalError(
            f"encoder {encoder.name} gave an array {matrix.shape} for {len(arrays)} item(s) of "
            f"dim {encoder.dim}; its `dim` or its `embed` is wrong"
        )
    return matrix


def one_line(error: BaseException) -> str:
    """The message of an exception, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
