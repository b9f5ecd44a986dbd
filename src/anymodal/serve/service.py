"""A request's way: files → decoders → networks → answers, each file separately."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.exceptions import HTTPException

from anymodal import __version__
from anymodal.classifier.joint import item_vector
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.media.segmentation import SegmentedItem
from anymodal.serve.answers import Health
from anymodal.serve.bodies import Upload
from anymodal.serve.budget import MemoryBudget
from anymodal.serve.decoder import UndecodableError, decoded_size
from anymodal.serve.decoding import SEGMENT, DecoderError, DecoderPool
from anymodal.serve.inference import Inference
from anymodal.serve.limits import ServeLimits
from anymodal.serve.metrics import Metrics
from anymodal.serve.problems import busy

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.search import Index

_COLUMNS = ["path", "modality", "kind", "seconds"]
ItemFields = dict[str, Any]
"""The fields of `anymodal.serve.answers.ItemAnswer`."""
Query = tuple[int, Modality | None]
"""How many neighbours, and of which modality; None: either."""


class Service:
    """A classifier, and an index where there is one, with decoders and an inference thread.

    The parameters are those of `anymodal.serve.app.create_app`.
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
                m: {"name": network.name, "version": network.version}
                for m, network in classifier.networks.items()
            },
        }
        self._metrics = metrics
        count_kill = lambda reason: metrics.kills.labels(reason).inc()  # noqa: E731
        self._pool = DecoderPool(classifier.sample_rate, limits, decode, count_kill)
        self._classifier = classifier
        self._index = index
        self._inference = Inference(limits.batch_windows)
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
        """End decoders and inference; what is waiting for the networks is still answered."""
        self._started = False
        self._pool.close()
        self._inference.stop()

    def health(self) -> Health:
        """Whether the server can answer."""
        # a decoder that was just lost is replaced when the next file arrives
        decoders, started = self._pool.alive, self._started
        status = "ok" if started and decoders else "failing"
        return Health(status=status, decoders=decoders, inference=started, requests=self.active)

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

    async def answer(
        self, uploads: Sequence[Upload], query: Query | None = None
    ) -> list[ItemFields]:
        """Classify each file, or with `query` find its neighbours in the index."""

        async def answer_or_error(upload: Upload) -> ItemFields:
            try:
                return {"item": upload.label, "status": 200, **await self._answer(upload, query)}
            except HTTPException as error:
                status, detail = error.status_code, str(error.detail)
            except AnymodalError as error:
                status, detail = 422, str(error)
                if isinstance(error, UndecodableError) and error.reason == "foreign":
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

    async def _answer(self, upload: Upload, query: Query | None) -> ItemFields:
        if len(upload.content) > self.limits.file_bytes:
            raise HTTPException(413, f"is larger than {self.limits.file_bytes:,} bytes")
        if not upload.content:
            raise HTTPException(415, "is empty")
        size = 0
        try:
            # a slot is kept until the item fits, so that few decoded items wait outside the budget
            with self._metrics.undecoded.track_inprogress():
                async with self._slots:
                    item = await asyncio.to_thread(self._pool.decode, upload.content, upload.label)
                    await self.budget.add_decoded(decoded_size(item))
                    size = decoded_size(item)
            work = self._predict if query is None else self._search
            future = self._inference.submit(work, (item, query), len(item.windows))
            return await asyncio.wrap_future(future)
        finally:
            self.budget.release(decoded=size)

    def _predict(self, payloads: Sequence[tuple[SegmentedItem, None]]) -> list[ItemFields]:
        self._metrics.batches.observe(len(payloads))
        predictions = self._classifier.predict_windows([item for item, _ in payloads])
        for prediction in predictions:
            self._metrics.items.labels(prediction.modality, "200").inc()
            self._metrics.unknown.inc(not prediction.known)
        return [{"prediction": prediction.as_dict()} for prediction in predictions]

    def _search(self, payloads: Sequence[tuple[SegmentedItem, Query]]) -> list[ItemFields]:
        self._metrics.batches.observe(len(payloads))
        vectors = self._classifier.embed_windows([item for item, _ in payloads])
        for of_item in vectors:
            used = "both" if len(of_item) == 2 else next(iter(of_item))
            self._metrics.items.labels(used, "200").inc()
        pairs = zip(vectors, payloads, strict=True)
        return [{"neighbours": self._nearest(of_item, *query)} for of_item, (_, query) in pairs]

    def _nearest(
        self, vectors: Mapping[Modality, np.ndarray], count: int, modality: Modality | None
    ) -> list[dict[str, Any]]:
        """The `count` rows of the index most similar to an item, best first, as JSON values."""
        assert self._index is not None
        hits = self._index.search(item_vector(vectors)[None], count, modality)
        rows = self._index.rows[_COLUMNS].iloc[hits.rows[0]].to_dict("records")
        return [
            {"rank": rank, "cosine": float(cosine), **row}
            for rank, (row, cosine) in enumerate(zip(rows, hits.cosines[0], strict=True), 1)
        ]
