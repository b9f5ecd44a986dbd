"""What went wrong, as one line of JSON (RFC 9457) with the status that says whose turn it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

PROBLEM = "application/problem+json"
_LINGER_S = 2.0
_LINGER_BYTES = 64 << 20


class Problem(Exception):
    """A request, or one item of it, that gets no answer; `detail` says why and what to do."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more


def busy(detail: str) -> Problem:
    """Too much at a time: to be tried again in a second."""
    return Problem(503, detail, {"Retry-After": "1"})


class ProblemResponse(JSONResponse):
    """A problem as a response."""

    media_type = PROBLEM

    def __init__(self, problem: Problem) -> None:
        content = {
            "type": "about:blank",
            "title": HTTPStatus(problem.status).phrase,
            "status": problem.status,
            "detail": problem.detail,
            **problem.more,
        }
        super().__init__(content, problem.status, problem.headers)


class RefusalResponse(ProblemResponse):
    """A problem told before the body was read to its end.

    A server that closes at once may cut off its own answer: the client is still sending, and is
    told of a broken connection. So what comes is thrown away, for a short while, before the end.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.headers["Connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then listen a little longer."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
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
