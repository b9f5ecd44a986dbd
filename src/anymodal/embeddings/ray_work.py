"""What the engine `ray` has done in other processes: batches of items decoded, then embedded.

Rows travel as Arrow tables of one batch each.

    {id}                              number of a batch
    {batch, first, items}             decoded: the first item's path, the pickled arrays and errors
    {batch, matrix, errors, refusal}  embedded: float32 bytes; `refusal` is why the run must end
"""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from anymodal.core.errors import AnymodalError
from anymodal.embeddings.engines import Batches, InputSpec, Item, decode, embed_batch, one_line
from anymodal.encoders.base import Encoder

if TYPE_CHECKING:
    import ray


class WorkerConfig(NamedTuple):
    """What a process that embeds must keep to."""

    identity: str
    """Of the encoder that the results are wanted of."""
    prepared: bool
    """Whether decoding prepares what it decoded."""
    threads: int
    """That the network computes with."""
    attempts: int
    """How often a batch is begun at most."""


def decode_batches(
    numbers: pa.Table, table: ray.ObjectRef, batches: Batches, medium: InputSpec
) -> Iterator[pa.Table]:
    """Task: numbers of batches → their items, decoded."""
    import ray

    rows = ray.get(table)  # shared memory: no copy of the whole list
    for number in numbers.column("id").to_pylist():
        start, stop = batches.span(number)
        items = [Item("", **row) for row in rows.slice(start, stop - start).to_pylist()]
        decoded = pickle.dumps([decode(item, medium) for item in items], protocol=5)
        yield pa.table(
            {
                "batch": [number],
                "first": [items[0].path],
                "items": pa.array([decoded], pa.large_binary()),
            }
        )


class Attempts:
    """Process that counts how often each batch was begun, for those that begin it may die."""

    def __init__(self) -> None:
        self._of: Counter[int] = Counter()

    def begin(self, batch: int) -> int:
        """Count one more; return how many there are."""
        self._of[batch] += 1
        return self._of[batch]


class Network:
    """Process that keeps the encoder: decoded batches → embeddings."""

    def __init__(self, network: ray.ObjectRef, attempts: Any, config: WorkerConfig) -> None:
        import ray

        self._attempts = attempts
        self._config = config
        self._refusal = ""
        try:
            self._encoder: Encoder = pickle.loads(ray.get(network))
        # an exception here would have Ray try again and again
        except Exception as error:
            self._refusal = (
                f"the encoder cannot be built in Ray's processes ({type(error).__name__}: "
                f"{one_line(error)}): install there what is installed here"
            )
            return
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(config.threads)
        rebuilt = identity_of(self._encoder)
        if rebuilt != config.identity:
            self._refusal = (
                f"Ray's processes built {rebuilt}, not {config.identity}: they find other weights "
                "or another version of anymodal"
            )

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        columns = (rows.column(name) for name in ("batch", "first", "items"))
        for batch, first, items in zip(*columns, strict=True):
            number = batch.as_py()
            matrix, errors, refusal = self._embed(number, first.as_py(), items.as_buffer())
            yield pa.table(
                {
                    "batch": [number],
                    "matrix": pa.array([matrix], pa.large_binary()),
                    "errors": pa.array([errors], pa.list_(pa.string())),
                    "refusal": [refusal],
                }
            )

    def _embed(
        self, number: int, first: str, items: pa.Buffer
    ) -> tuple[bytes, list[str | None], str]:
        """Matrix, errors, and why the run must end."""
        import ray

        if self._refusal:
            return b"", [], self._refusal
        if ray.get(self._attempts.begin.remote(number)) > self._config.attempts:
            reason = (
                f"{self._config.attempts} process(es) died of the batch that begins with {first}"
            )
            return b"", [], f"{reason}: try smaller batches, or leave out what cannot be embedded"
        try:
            matrix, errors = embed_batch(
                self._encoder, pickle.loads(items), prepared=self._config.prepared
            )
        except AnymodalError as error:
            return b"", [], one_line(error)
        return matrix.tobytes(), errors, ""


def identity_of(encoder: Encoder) -> str:
    """What tells encoders apart, in words."""
    return f"{encoder.name} of {encoder.dim} values, version {encoder.version}"
