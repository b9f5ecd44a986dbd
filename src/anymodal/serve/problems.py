"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

PROBLEM = "application/problem+json"
_LINGER_S = 2.0
_LINGER_BYTES = 64 << 20


def busy(detail: str) -> HTTPException:
    """503, to be retried after a second."""
    return HTTPException(503, f"{detail}; try again", {"Retry-After": "1"})


class ProblemResponse(JSONResponse):
    """An error as a response; `more` are further fields of its body."""

    media_type = PROBLEM

    def __init__(self, error: HTTPException, **more: Any) -> None:
        content = {
            "type": "about:blank",
            "title": HTTPStatus(error.status_code).phrase,
            "status": error.status_code,
            "detail": str(error.detail),
            **more,
        }
        super().__init__(content, error.status_code, error.headers)


class EarlyProblemResponse(ProblemResponse):
    """An error sent before the whole body was received; the connection is closed.

    A client that is still sending may not see an answer if the connection closes at once, so the
    rest of the body is read and discarded for a short while.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers["Connection"] = "close"
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await _discard(receive)
        await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    left = _LINGER_BYTES
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return
        left -= len(message.get("body", b""))
