"""uvicorn around the app: says where it is, and ends gracefully."""

from __future__ import annotations

import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from anymodal.core.errors import AnymodalError
from anymodal.serve.limits import ServeLimits
from anymodal.serve.service import Service


class Server(uvicorn.Server):
    """Stops on SIGTERM and SIGINT: takes nothing new, finishes what it took, and returns.

    uvicorn itself raises the signal once more when it is done, which makes an orderly end look like
    a crash.
    """

    def __init__(self, config: uvicorn.Config, on_start: Callable[[str], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell the address."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_start(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals of the block for a wish to stop; the second one, to stop at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(
    app: FastAPI,
    limits: ServeLimits,
    host: str = "127.0.0.1",
    port: int = 8000,
    access_log: bool = False,
    on_start: Callable[[str], None] = lambda address: None,
) -> Server:
    """A server for the app, not started; port 0 for any that is free.

    `on_start` gets the address once it can be asked.
    """
    config = uvicorn.Config(
        app,
        host,
        port,
        log_level="info" if access_log else "warning",
        access_log=access_log,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.stop_s),
        # connections that send no request cost little, but something
        limit_concurrency=max(256, 8 * limits.requests),
        ws="none",
        lifespan="on",
    )
    return Server(config, on_start)


def run(server: Server) -> None:
    """Serve until a signal; `AnymodalError` where it cannot start, or had to cut something off."""
    service: Service = server.config.app.state.service  # type: ignore[union-attr]
    # here, because uvicorn would print how it came to its error, and not just the error
    service.start()
    try:
        server.run()
    finally:
        service.stop()
    if service.cut:
        raise AnymodalError(
            f"{service.cut} request(s) were cut off: they took longer than --stop-seconds"
        )
