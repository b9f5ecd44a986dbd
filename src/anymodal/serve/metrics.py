"""What Prometheus reads at `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "anymodal_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "anymodal_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.items = Counter(
            "anymodal_items",
            "Files looked at, by what was used of them; `none` where none could be.",
            ["modality", "status"],
            registry=self.registry,
        )
        self.unknown = Counter(
            "anymodal_unknown_answers",
            "Files that are probably of no class.",
            registry=self.registry,
        )
        self.kills = Counter(
            "anymodal_decoder_kills",
            "Decoder processes that were lost and replaced.",
            ["reason"],
            registry=self.registry,
        )
        for reason in ("time", "memory", "crash"):
            self.kills.labels(reason)
        self.batches = Histogram(
            "anymodal_batch_items",
            "Items that the networks got at a time.",
            buckets=_COUNTS,
            registry=self.registry,
        )

    def gauge(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """A figure that is looked up when it is asked for."""
        Gauge(f"anymodal_{name}", help_, registry=self.registry).set_function(value)

    def text(self) -> tuple[bytes, str]:
        """All of it, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class CountRequests:
    """Middleware: counts and times every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # any other path is a stranger's choice, and a label for each would fill the memory
        route = scope["path"] if scope["path"] in self._routes else "other"
        began, status = time.perf_counter(), "cut"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
