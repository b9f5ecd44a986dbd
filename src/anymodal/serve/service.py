"""A request's way: files → decoders → networks → answers, each file for itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np

from anymodal import __version__
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.media.segmentation import SegmentedItem
from anymodal.serve.bodies import HeldBytes, Upload
from anymodal.serve.decoding import SEGMENT, DecoderError, DecoderPool, UndecodableError
from anymodal.serve.inference import Inference
from anymodal.serve.limits import ServeLimits
from anymodal.serve.metrics import Metrics
from anymodal.serve.neighbours import Neighbours
from anymodal.serve.problems import Problem, busy
from anymodal.serve.wire import decoded_size

Vectors = dict[Modality, np.ndarray]


class Classifier(Protocol):
    """What is served: `anymodal.classifier.model.ModalityAgnosticClassifier`, or anything like
    it."""

    @property
    def sample_rate(self) -> int:
        """Hz of the sounds that it takes."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        ...

    @property
    def networks(self) -> Any:
        """Its encoders, by modality: each has a name and a version."""
        ...

    def predict_windows(self, items: Sequence[SegmentedItem]) -> Sequence[Any]:
        """Predictions, each with `as_dict`, `known` and `modality`."""
        ...

    def embed_windows(self, items: Sequence[SegmentedItem]) -> Sequence[Vectors]:
        """Vectors in the joint space, by modality."""
        ...


class Room:
    """Bytes of decoded items that are held at a time; who finds it full waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Hold `size` more, once there is room; something larger than all of it is held alone."""
        if not self._waiting and self._fits(size):
            self._held += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size)
            raise

    def give_back(self, size: int) -> None:
        """Let go of `size`."""
        self._held -= size
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._held += wanted
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return not self._held or self._held + size <= self._limit


class Service:
    """A classifier, and an index where there is one, with their decoders and their thread.

    Parameters
    ----------
    classifier: see `Classifier`; used by one thread at a time.
    index: `anymodal.search.Index`, or None.
    limits, metrics: see there.
    name: what the answers call the model.
    decode: see `DecoderPool`.
    """

    def __init__(
        self,
        classifier: Classifier,
        index: Any,
        limits: ServeLimits,
        metrics: Metrics,
        name: str,
        decode: str = SEGMENT,
    ) -> None:
        self.limits = limits
        self.held = HeldBytes(limits.held_bytes)
        self.active = 0
        self.cut = 0
        """Requests that were taken and not finished."""
        self.model = {
            "name": name,
            "anymodal": __version__,
            "classes": [str(one) for one in classifier.classes],
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
        find = None if index is None else Neighbours(index)
        self._inference = Inference(
            {
                "predict": classifier.predict_windows,
                "embed": classifier.embed_windows,
                "search": lambda payloads: [find(*one) for one in payloads] if find else [],
            },
            limits.batch_moments,
            metrics.batches.observe,
        )
        self._slots = asyncio.Semaphore(limits.decoders)
        self._room = Room(limits.held_bytes)
        self._undecoded = 0
        self._started = False
        metrics.gauge("requests_in_progress", "Requests taken.", lambda: self.active)
        metrics.gauge("decode_queue", "Files not decoded yet.", lambda: self._undecoded)
        metrics.gauge(
            "inference_queue", "Items no batch has taken yet.", lambda: self._inference.waiting
        )
        metrics.gauge("decoders", "Decoder processes that run.", lambda: self._pool.alive)

    def start(self) -> None:
        """Start decoders and thread, unless they are; `AnymodalError` where they cannot work."""
        if not self._started:
            self._pool.start()
            self._inference.start()
            self._started = True

    def stop(self) -> None:
        """End them. What is waiting for the networks is still answered."""
        self._pool.close()
        self._inference.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def health(self) -> dict[str, Any]:
        """Whether it can answer, and why not."""
        decoders, inference = self._pool.alive, self._inference.alive
        # one that was just lost is replaced when the next file comes
        return {
            "status": "ok" if inference and decoders else "failing",
            "decoders": decoders,
            "inference": inference,
            "requests": self.active,
        }

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One of the requests that are taken at a time; 503 where there are too many."""
        if self.active >= self.limits.requests:
            raise busy(f"{self.limits.requests} requests are in progress; try again")
        self.active += 1
        try:
            yield
        except asyncio.CancelledError:
            # the server's time to finish is over
            self.cut += 1
            raise Problem(503, "the server is being stopped", {"Connection": "close"}) from None
        finally:
            self.active -= 1

    async def predict(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """An `ItemAnswer` with a prediction for each file, in their order."""
        return await self._each(uploads, self._predict)

    async def search(
        self, uploads: Sequence[Upload], count: int, modality: Modality | None
    ) -> list[dict[str, Any]]:
        """An `ItemAnswer` with `count` neighbours for each file, in their order."""

        async def find(windows: SegmentedItem) -> dict[str, Any]:
            vectors = await self._ask("embed", windows, len(windows.windows))
            found = await self._ask("search", (vectors, count, modality), 1)
            used = "both" if len(vectors) == 2 else next(iter(vectors))
            self._metrics.items.labels(used, "200").inc()
            return {"neighbours": found}

        return await self._each(uploads, find)

    async def _each(self, uploads: Sequence[Upload], answer: Any) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(self.limits.answer_s):
                return await asyncio.gather(*(self._one(upload, answer) for upload in uploads))
        except TimeoutError:
            raise Problem(
                504,
                f"no answer within {self.limits.answer_s:g} s; send less at a time, or later",
                {"Retry-After": "5"},
            ) from None

    async def _one(self, upload: Upload, answer: Any) -> dict[str, Any]:
        try:
            return {"item": upload.label, "status": 200, **await self._answered(upload, answer)}
        except Problem as problem:
            status, detail = problem.status, problem.detail
        except UndecodableError as error:
            status, detail = (415 if error.foreign else 422), str(error)
        except DecoderError as error:
            status, detail = 503, str(error)
        except AnymodalError as error:
            status, detail = 422, str(error)
        self._metrics.items.labels("none", str(status)).inc()
        return {"item": upload.label, "status": status, "error": detail}

    async def _answered(self, upload: Upload, answer: Any) -> dict[str, Any]:
        if len(upload.content) > self.limits.file_bytes:
            raise Problem(413, f"is larger than {self.limits.file_bytes:,} bytes")
        if not upload.content:
            raise Problem(415, "is empty")
        size = 0
        try:
            with self._counted_as_undecoded():
                # a slot is kept until there is room, so that no more than that is ever held
                async with self._slots:
                    windows = await asyncio.get_running_loop().run_in_executor(
                        self._threads, self._pool.decode, upload.content, upload.label
                    )
                    await self._room.take(decoded_size(windows))
                    size = decoded_size(windows)
            return await answer(windows)
        finally:
            if size:
                self._room.give_back(size)

    @contextmanager
    def _counted_as_undecoded(self) -> Iterator[None]:
        self._undecoded += 1
        try:
            yield
        finally:
            self._undecoded -= 1

    async def _predict(self, windows: SegmentedItem) -> dict[str, Any]:
        prediction = await self._ask("predict", windows, len(windows.windows))
        self._metrics.items.labels(prediction.modality, "200").inc()
        if not prediction.known:
            self._metrics.unknown.inc()
        return {"prediction": prediction.as_dict()}

    async def _ask(
        self, task: Literal["predict", "embed", "search"], payload: Any, weight: int
    ) -> Any:
        return await asyncio.wrap_future(self._inference.submit(task, payload, weight))
