"""The metrics for Prometheus at `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one app, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        ProcessCollector(**own)
        routes = ["route", "status"]
        self.requests = Counter("anymodal_requests", "Requests answered.", routes, **own)
        text = "From a request's head to the end of its answer."
        name = "anymodal_request_seconds"
        self.seconds = Histogram(name, text, ["route"], buckets=_SECONDS, **own)
        text = "Files by the modality used; `none` for files without an answer."
        self.items = Counter("anymodal_items", text, ["modality", "status"], **own)
        text = "Files answered `unknown`."
        self.unknown = Counter("anymodal_unknown_answers", text, **own)
        text = "Decoders lost and replaced."
        self.kills = Counter("anymodal_decoder_kills", text, ["reason"], **own)
        for reason in ("time", "memory", "crash"):
            self.kills.labels(reason)
        text = "Items per batch."
        self.batches = Histogram("anymodal_batch_items", text, buckets=_COUNTS, **own)
        self.undecoded = Gauge("anymodal_decode_queue", "Files not decoded yet.", **own)

    def gauge(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """Add a metric that calls `value` whenever it is read."""
        Gauge(f"anymodal_{name}", help_, registry=self.registry).set_function(value)


class CountRequests:
    """Middleware: counts and times every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), "cut"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if scope["type"] == "http":
                # clients choose other paths freely, and a label for each would fill the memory
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, status).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
