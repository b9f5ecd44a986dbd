"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

_DISCARDING_S = 2.0
_DISCARDED_BYTES = 64 << 20


def busy(detail: str) -> HTTPException:
    """503, to be retried after a second."""
    return HTTPException(503, f"{detail}; try again", {"Retry-After": "1"})


class ProblemResponse(JSONResponse):
    """An error as a response; `more` are further fields of its body.

    With `early`, the client is still sending, and may not see an answer if the connection closes at
    once: what it sends is discarded for a short while before.
    """

    media_type = "application/problem+json"

    def __init__(self, error: HTTPException, early: bool = False, **more: Any) -> None:
        status = error.status_code
        content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
        super().__init__({**content, "detail": str(error.detail), **more}, status, error.headers)
        self._early = early

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._early:
            await super().__call__(scope, receive, send)
            return
        self.headers["Connection"] = "close"
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left, more = _DISCARDED_BYTES, True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARDING_S):
                while more and left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": b""})
