"""uvicorn around the app: prints its address, and stops gracefully."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from anymodal.core.errors import AnymodalError
from anymodal.serve.limits import ServeLimits
from anymodal.serve.service import Service


def make_server(app: FastAPI, limits: ServeLimits, access_log: bool = False) -> uvicorn.Server:
    """Return a server for the app, not started."""
    config = uvicorn.Config(
        app,
        log_level="info" if access_log else "warning",
        access_log=access_log,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.stop_s),
        # connections that send no request cost little, but something
        limit_concurrency=max(256, 8 * limits.requests),
        ws="none",
        lifespan="on",
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a listening socket, port 0 for any free one, and its address as a URL."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise AnymodalError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --port or --host"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    return listening, f"http://{shown}:{listening.getsockname()[1]}"


def run(
    server: uvicorn.Server,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve in the main thread until SIGTERM or SIGINT; requests in progress are then finished.

    `on_start` gets the address. `AnymodalError` where the server cannot start, or aborts requests.
    """
    service: Service = server.config.app.state.service  # type: ignore[union-attr]
    listening, address = listen(host, port)
    # uvicorn raises the signal once more when it has stopped, as if it had not been handled
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        # uvicorn would log an error of the start with its traceback
        service.start()
        on_start(address)
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listening.close()
        service.stop()
    if service.cut:
        raise AnymodalError(
            f"{service.cut} request(s) were cut off: they took longer than --stop-seconds"
        )
