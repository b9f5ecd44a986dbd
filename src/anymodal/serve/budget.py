"""The memory of all requests together."""

from __future__ import annotations

import asyncio

from anymodal.serve.problems import busy


class MemoryBudget:
    """Bytes of bodies and decoded items in memory; for one event loop.

    A body that does not fit is refused. A decoded item waits its turn; one is always let in, so
    that requests whose bodies fill the budget still get their answers.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bodies = 0
        self.decoded = 0
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()

    def add_body(self, size: int) -> None:
        """Count `size` bytes of a body; 503 where they do not fit."""
        if not self._fits(size):
            raise busy("the requests in progress use all the memory allowed")
        self.bodies += size

    async def add_decoded(self, size: int) -> None:
        """Count a decoded item of `size` bytes, once it fits."""
        async with self._turn:
            while self.decoded and not self._fits(size):
                self._released.clear()
                await self._released.wait()
            self.decoded += size

    def release(self, body: int = 0, decoded: int = 0) -> None:
        """Give bytes back."""
        self.bodies -= body
        self.decoded -= decoded
        self._released.set()

    def _fits(self, size: int) -> bool:
        return self.bodies + self.decoded + size <= self._limit
