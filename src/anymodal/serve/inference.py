"""One thread that runs the networks, in batches of what is waiting.

The networks are not promised to be safe in several threads, and one batch of ten items takes less
time than ten batches of one. Nobody waits for company: a batch is what has come in while the last
one ran.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Takes payloads, gives one result for each, in their order."""


@dataclass
class _Ticket:
    task: str
    payload: Any
    weight: int
    future: Future = field(default_factory=Future)


class Inference:
    """Runs tasks one batch at a time.

    Parameters
    ----------
    tasks: what can be asked for, by name.
    batch: how much weight a batch may have; something heavier goes alone.
    on_batch: told the number of payloads of every batch that is run.
    """

    def __init__(
        self,
        tasks: Mapping[str, Work],
        batch: int,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._tasks = dict(tasks)
        self._batch = batch
        self._on_batch = on_batch
        self._waiting: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is waiting and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Payloads that no batch has taken yet."""
        return len(self._waiting)

    def submit(self, task: str, payload: Any, weight: int = 1) -> Future:
        """Ask for a payload's result. One that fails fails alone; a cancelled one is not run."""
        ticket = _Ticket(task, payload, weight)
        with self._changed:
            if self._stopping:
                raise RuntimeError("inference has been stopped")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket.future

    def _run(self) -> None:
        while batch := self._next():
            taken = [ticket for ticket in batch if ticket.future.set_running_or_notify_cancel()]
            if taken:
                self._on_batch(len(taken))
                self._answer(taken)

    def _next(self) -> list[_Ticket]:
        """The oldest ticket and those that go with it; empty at the end."""
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if not self._waiting:
                return []
            batch = [self._waiting.popleft()]
            weight, kept = batch[0].weight, deque[_Ticket]()
            for ticket in self._waiting:
                if ticket.task == batch[0].task and weight + ticket.weight <= self._batch:
                    batch.append(ticket)
                    weight += ticket.weight
                else:
                    kept.append(ticket)
            self._waiting = kept
            return batch

    def _answer(self, batch: list[_Ticket]) -> None:
        try:
            results = self._tasks[batch[0].task]([ticket.payload for ticket in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} payloads")
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            # which of them it was shows when each is alone
            for ticket in batch:
                self._answer([ticket])
            return
        for ticket, result in zip(batch, results, strict=True):
            ticket.future.set_result(result)
