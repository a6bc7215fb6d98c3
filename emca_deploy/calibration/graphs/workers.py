"""Images worked on side by side, their results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["LARGEST_POOL", "in_order", "pool_size"]

LARGEST_POOL = 4
"""Workers that run images side by side; each holds the tensors of its images."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def pool_size(threads: int) -> tuple[int, int]:
    """Return how many workers to use, and how many threads each one's runtime."""
    workers = min(threads, LARGEST_POOL)
    return workers, max(1, threads // workers)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield the results of work on items, done by threads, in the items' order; few wait, however many items there are.

    Raises:
        Exception: what the work raises, in its item's turn.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="calibrate")
    try:
        for item in items:
            if len(pending) > workers:
                yield pending.popleft().result()
            pending.append(pool.submit(work, item))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
