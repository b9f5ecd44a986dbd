"""Engine `ray`: decoding and networks spread over processes and machines by Ray Data.

The pipeline has one row a batch, so that the batches are those of the local engine:

    numbers of batches → decode (tasks, a processor each) → embed (processes that keep the network)

Ray Data starts new batches only while the decoded ones fit its share of memory, and repeats
elsewhere what a process or machine that died was working on. Networks compute with as many threads
as in the calling process: on processors of one kind the results are the local engine's, bit by bit.

On a cluster every machine must see the media under the same paths (a shared file system) and have
anymodal installed with the extras that the encoder needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from anymodal.core.errors import AnymodalError
from anymodal.embeddings import ray_session
from anymodal.embeddings.engines import Batches, BatchResult, ChunkResult, InputSpec, Item, one_line
from anymodal.embeddings.ray_work import (
    Attempts,
    Network,
    WorkerConfig,
    decode_batches,
    identity_of,
)
from anymodal.encoders.base import Encoder, PreparingEncoder

DECODED_BYTES = 1 << 29
"""Decoded items that may wait for a network, a machine; Ray Data may exceed it by what is being
decoded."""


@dataclass
class RayEngine:
    """Ray Data as an `Engine`; chunks come as they are finished, not in order.

    Uses the Ray session of this process, if there is one; else the cluster that `RAY_ADDRESS`
    names; else starts Ray on this machine. What it started or joined it leaves at the end of the
    call, or, used as a context manager, at the end of the block.
    """

    workers: int = 2
    """Processes that decode, where Ray is started on this machine; on a cluster as many as it has
    processors for."""
    networks: int | None = None
    """Processes that hold the encoder, at most. None: one on this machine, or as many as a cluster
    has processors for; for an encoder on a GPU one a GPU."""
    attempts: int = 5
    """How often a batch is begun: that a process dies is no reason to stop, but a batch that kills
    every process it comes to (out of memory, a crash in native code) would be tried for ever."""
    _session: ray_session.Session | None = field(default=None, repr=False)
    _held: bool = field(default=False, repr=False)

    def __enter__(self) -> RayEngine:
        self._held = True
        return self

    def __exit__(self, *_: object) -> None:
        self._held = False
        self._leave()

    def __call__(
        self, encoder: Encoder, items: Sequence[Item], batch_size: int, chunk: int
    ) -> Iterator[ChunkResult]:
        """See `Engine`.

        Raises `AnymodalError` when Ray is missing or cannot be reached, when the encoder cannot
        travel to another process unchanged, and when Ray gives up.
        """
        if not items:
            return
        if self._session is None:
            self._session = ray_session.enter(self.workers, _threads())
        try:
            batches = Batches(len(items), batch_size, chunk)
            results = self._run(self._session, encoder, items, batches)
            yield from batches.whole_chunks(results)
        finally:
            if not self._held:
                self._leave()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.leave()

    def _run(
        self,
        session: ray_session.Session,
        encoder: Encoder,
        items: Sequence[Item],
        batches: Batches,
    ) -> Iterator[BatchResult]:
        """Every batch's result, as they come."""
        import ray
        import ray.data

        threads = _threads()
        most, processors, gpus = session.resources(_on_gpu(encoder), threads, self.networks)
        # the references must live as long as the run: a restarted process asks for them again
        network = ray.put(_packed(encoder))
        paths, starts = [item.path for item in items], [item.start_s for item in items]
        table = ray.put(pa.table({"path": paths, "start_s": starts}))
        # the defaults of Ray Data bring a dead process back without limit
        lasting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
        attempts: Any = lasting(Attempts).remote()
        medium = _medium(encoder)
        prepared = medium.prepare is not None
        config = WorkerConfig(identity_of(encoder), prepared, threads, self.attempts)
        data = (
            ray.data.range(batches.count, override_num_blocks=batches.count)
            .map_batches(
                partial(decode_batches, table=table, batches=batches, medium=medium),
                batch_size=1,
                batch_format="pyarrow",
            )
            .map_batches(
                Network,
                fn_constructor_args=(network, attempts, config),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
                num_cpus=processors,
                num_gpus=gpus,
            )
        )
        data.context.enable_progress_bars = False
        options = data.context.execution_options
        options.resource_limits = ray.data.ExecutionResources.for_limits(
            object_store_memory=DECODED_BYTES * len(ray.nodes())
        )
        try:
            blocks: Iterable[Any] = data.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            )
            for block in blocks:
                for row in block.to_pylist():
                    if row["refusal"]:
                        raise AnymodalError(row["refusal"])
                    matrix = np.frombuffer(row["matrix"], np.float32).reshape(-1, encoder.dim)
                    yield BatchResult(row["batch"], matrix, row["errors"])
        except (ray.exceptions.RayTaskError, ray.exceptions.UserCodeException):
            raise  # an error in anymodal or the encoder, whose traceback tells more
        except ray.exceptions.RayError as error:
            reason = str(error).partition("\n")[0]
            raise AnymodalError(f"Ray gave up: {reason}; a rerun continues") from error
        finally:
            ray.kill(attempts)
            del network, table


def _packed(encoder: Encoder) -> np.ndarray:
    """The encoder as bytes that processes of one machine share."""
    from ray import cloudpickle

    try:
        return np.frombuffer(cloudpickle.dumps(encoder), np.uint8)
    # pickling runs the code of whatever the encoder holds
    except Exception as error:
        raise AnymodalError(
            f"{encoder.name} cannot travel to another process ({type(error).__name__}: "
            f"{one_line(error)}): use the local engine"
        ) from error


def _medium(encoder: Encoder) -> InputSpec:
    """For decoding in other processes: images are made small before they travel; audio is small,
    and decoding it needs no network library."""
    prepare = None
    if isinstance(encoder, PreparingEncoder) and encoder.modality == "image":
        prepare = encoder.preparation()
    return InputSpec.of(encoder, prepare)


def _on_gpu(encoder: Encoder) -> bool:
    device = str(getattr(encoder, "device", "cpu"))
    if device.startswith("cuda") and device not in ("cuda", "cuda:0"):
        raise AnymodalError(
            f"{encoder.name} is on {device}; Ray hands out the GPUs itself: use device='cuda'"
        )
    return device.startswith("cuda")


def _threads() -> int:
    """Threads that a network computes with in this process."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 1
