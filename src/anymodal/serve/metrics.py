"""The metrics for Prometheus at `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one app, in a separate registry."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "anymodal_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "anymodal_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.items = Counter(
            "anymodal_items",
            "Files by the modality used; `none` for files without an answer.",
            ["modality", "status"],
            registry=registry,
        )
        self.unknown = Counter(
            "anymodal_unknown_answers", "Files answered `unknown`.", registry=registry
        )
        self.kills = Counter(
            "anymodal_decoder_kills", "Decoders lost and replaced.", ["reason"], registry=registry
        )
        for reason in ("time", "memory", "crash"):
            self.kills.labels(reason)
        self.batches = Histogram(
            "anymodal_batch_items", "Items per batch.", buckets=_COUNTS, registry=registry
        )
        self.undecoded = Gauge("anymodal_decode_queue", "Files not decoded yet.", registry=registry)

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
