"""A request's way: files → decoders → networks → answers, each file separately."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from starlette.exceptions import HTTPException

from anymodal import __version__
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.media.segmentation import SegmentedItem
from anymodal.serve.bodies import Upload
from anymodal.serve.budget import MemoryBudget
from anymodal.serve.decoder import decoded_size
from anymodal.serve.decoding import SEGMENT, DecoderError, DecoderPool, UndecodableError
from anymodal.serve.inference import Inference
from anymodal.serve.limits import ServeLimits
from anymodal.serve.metrics import Metrics
from anymodal.serve.neighbours import Neighbours
from anymodal.serve.problems import busy

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.search import Index

ItemFields = dict[str, Any]
"""The fields of `anymodal.serve.answers.ItemAnswer`."""


class Service:
    """A classifier, and an index where there is one, with decoders and an inference thread.

    Parameters
    ----------
    name: of the model, in the answers.
    decode: see `DecoderPool`.
    """

    def __init__(
        self,
        classifier: ModalityAgnosticClassifier,
        index: Index | None,
        limits: ServeLimits,
        metrics: Metrics,
        name: str,
        decode: str = SEGMENT,
    ) -> None:
        self.limits = limits
        self.budget = MemoryBudget(limits.held_bytes)
        self.active = 0
        self.cut = 0
        """Requests that were admitted and not finished."""
        self.model = {
            "name": name,
            "anymodal": __version__,
            "classes": [str(name) for name in classifier.classes],
            "encoders": {
                modality: {"name": network.name, "version": network.version}
                for modality, network in classifier.networks.items()
            },
        }
        self._metrics = metrics
        self._pool = DecoderPool(
            classifier.sample_rate,
            limits,
            decode,
            lambda reason: metrics.kills.labels(reason).inc(),
        )
        self._threads = ThreadPoolExecutor(limits.decoders, thread_name_prefix="decoding")
        tasks: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
            "predict": classifier.predict_windows,
            "embed": classifier.embed_windows,
        }
        if index is not None:
            find = Neighbours(index)
            tasks["search"] = lambda payloads: [find(*payload) for payload in payloads]
        self._inference = Inference(tasks, limits.batch_windows, metrics.batches.observe)
        self._slots = asyncio.Semaphore(limits.decoders)
        self._started = False
        metrics.gauge("requests_in_progress", "Requests admitted.", lambda: self.active)
        metrics.gauge("inference_queue", "Items in no batch yet.", lambda: self._inference.waiting)
        metrics.gauge("decoders", "Decoder processes that run.", lambda: self._pool.alive)

    def start(self) -> None:
        """Start the decoders, unless they run; `AnymodalError` where they do not start."""
        if not self._started:
            self._pool.start()
            self._started = True

    def stop(self) -> None:
        """End decoders and threads; what is waiting for the networks is still answered."""
        self._started = False
        self._pool.close()
        self._inference.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def health(self) -> dict[str, Any]:
        """The fields of `anymodal.serve.answers.Health`."""
        # a decoder that was just lost is replaced when the next file arrives
        decoders = self._pool.alive
        return {
            "status": "ok" if self._started and decoders else "failing",
            "decoders": decoders,
            "inference": self._started,
            "requests": self.active,
        }

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as in progress; 503 where there are too many."""
        if self.active >= self.limits.requests:
            raise busy(f"{self.limits.requests} requests are in progress")
        self.active += 1
        try:
            yield
        except asyncio.CancelledError:
            # the server's time to finish is over
            self.cut += 1
            raise HTTPException(
                503, "the server is being stopped", {"Connection": "close"}
            ) from None
        finally:
            self.active -= 1

    async def predict(self, uploads: Sequence[Upload]) -> list[ItemFields]:
        """Classify each file."""

        async def answer(item: SegmentedItem) -> ItemFields:
            prediction = await self._ask("predict", item, len(item.windows))
            self._metrics.items.labels(prediction.modality, "200").inc()
            if not prediction.known:
                self._metrics.unknown.inc()
            return {"prediction": prediction.as_dict()}

        return await self._each(uploads, answer)

    async def search(
        self, uploads: Sequence[Upload], count: int, modality: Modality | None
    ) -> list[ItemFields]:
        """Find `count` neighbours of each file."""

        async def answer(item: SegmentedItem) -> ItemFields:
            vectors = await self._ask("embed", item, len(item.windows))
            neighbours = await self._ask("search", (vectors, count, modality), 1)
            used = "both" if len(vectors) == 2 else next(iter(vectors))
            self._metrics.items.labels(used, "200").inc()
            return {"neighbours": neighbours}

        return await self._each(uploads, answer)

    async def _each(
        self,
        uploads: Sequence[Upload],
        answer: Callable[[SegmentedItem], Awaitable[ItemFields]],
    ) -> list[ItemFields]:
        async def answer_or_error(upload: Upload) -> ItemFields:
            try:
                fields = await self._decoded(upload, answer)
                return {"item": upload.label, "status": 200, **fields}
            except HTTPException as error:
                status, detail = error.status_code, str(error.detail)
            except AnymodalError as error:
                status, detail = 422, str(error)
                if isinstance(error, UndecodableError) and error.foreign:
                    status = 415
                elif isinstance(error, DecoderError):
                    status = 503
            self._metrics.items.labels("none", str(status)).inc()
            return {"item": upload.label, "status": status, "error": detail}

        try:
            async with asyncio.timeout(self.limits.answer_s):
                return await asyncio.gather(*map(answer_or_error, uploads))
        except TimeoutError:
            raise HTTPException(
                504,
                f"no answer within {self.limits.answer_s:g} s; send less, or try again later",
                {"Retry-After": "5"},
            ) from None

    async def _decoded(
        self, upload: Upload, answer: Callable[[SegmentedItem], Awaitable[ItemFields]]
    ) -> ItemFields:
        """Decode a file and answer it."""
        if len(upload.content) > self.limits.file_bytes:
            raise HTTPException(413, f"is larger than {self.limits.file_bytes:,} bytes")
        if not upload.content:
            raise HTTPException(415, "is empty")
        size = 0
        try:
            # a slot is kept until the item fits, so that few decoded items wait outside the budget
            with self._metrics.undecoded.track_inprogress():
                async with self._slots:
                    item = await asyncio.get_running_loop().run_in_executor(
                        self._threads, self._pool.decode, upload.content, upload.label
                    )
                    await self.budget.add_decoded(decoded_size(item))
                    size = decoded_size(item)
            return await answer(item)
        finally:
            self.budget.release(decoded=size)

    async def _ask(
        self, task: Literal["predict", "embed", "search"], payload: Any, weight: int
    ) -> Any:
        return await asyncio.wrap_future(self._inference.submit(task, payload, weight))
