"""Decoding ahead: threads prepare the next items while the calling thread computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def decode_ahead(
    items: Iterable[T],
    decode: Callable[[T], R],
    workers: int,
    ahead: int,
    size: Callable[[R], int] = lambda result: 0,
    most: int = 1,
) -> Generator[R, None, None]:
    """`decode(item)` of every item, in order.

    At most `ahead` items are taken before they are asked for, and none while the waiting results
    have a total `size` of `most` or more.
    """
    waiting: deque[Future[R]] = deque()
    upcoming = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def fill() -> None:
        while len(waiting) < ahead:
            if sum(size(future.result()) for future in waiting if future.done()) >= most:
                return
            try:
                item = next(upcoming)
            except StopIteration:
                return
            waiting.append(pool.submit(decode, item))

    try:
        fill()
        while waiting:
            result = waiting.popleft().result()
            fill()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
