"""One thread that runs the networks, which may not be thread-safe, on batches of what arrived while
the previous one ran: nothing waits for a batch to fill."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""A function that returns one result for each payload, in their order."""


class _Ticket(NamedTuple):
    work: Work
    payload: Any
    weight: int
    future: Future


class Inference:
    """Runs functions one batch at a time; heavier payloads than `batch` run alone."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._queue: deque[_Ticket] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")

    def stop(self) -> None:
        """Finish what is waiting and end the thread."""
        self._thread.shutdown(wait=True)

    @property
    def waiting(self) -> int:
        """Payloads in no batch yet."""
        return len(self._queue)

    def submit(self, work: Work, payload: Any, weight: int = 1) -> Future:
        """Ask for a payload's result. One that fails fails alone; a cancelled one is not run."""
        ticket = _Ticket(work, payload, weight, Future())
        with self._lock:
            # once for each ticket; finds the queue empty where a batch took several
            self._thread.submit(self._run_batch)
            self._queue.append(ticket)
        return ticket.future

    def _run_batch(self) -> None:
        batch = [t for t in self._take_batch() if t.future.set_running_or_notify_cancel()]
        if batch:
            self._answer(batch)

    def _take_batch(self) -> list[_Ticket]:
        """The oldest ticket and those of the same function that fit beside it."""
        batch: list[_Ticket] = []
        others: deque[_Ticket] = deque()
        with self._lock:
            for ticket in self._queue:
                weight = sum(t.weight for t in batch) + ticket.weight
                fits = not batch or (ticket.work == batch[0].work and weight <= self._batch)
                (batch if fits else others).append(ticket)
            self._queue = others
        return batch

    def _answer(self, batch: list[_Ticket]) -> None:
        try:
            results = batch[0].work([ticket.payload for ticket in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} payloads")
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            # alone, each shows whether it was the one that failed
            for ticket in batch:
                self._answer([ticket])
            return
        for ticket, result in zip(batch, results, strict=True):
            ticket.future.set_result(result)
