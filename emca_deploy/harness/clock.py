"""Times calls on the monotonic nanosecond clock, without garbage collection."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns

import numpy as np

from emca_deploy.arrays import Int64Array

__all__ = ["no_garbage_collection", "time_calls"]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect now and not again until the end, so no call includes a collection. Nested inside another one, it does nothing."""
    enabled = gc.isenabled()
    if enabled:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def time_calls(
    call: Callable[[], object],
    seconds: float,
    min_calls: int = 1,
    max_calls: int = 1_000_000,
    after: Callable[[], object] | None = None,
) -> Int64Array:
    """Call until the time is over, and return the nanoseconds of every call, in order, (calls,) int64.

    After that time, no call starts once `min_calls` are made, and none after `max_calls`. `after` is called after every call; the
    time between calls is not counted.
    """
    latencies_ns: list[int] = []
    with no_garbage_collection():
        end_ns = perf_counter_ns() + int(seconds * 1e9)
        now_ns = 0
        while len(latencies_ns) < min_calls or (now_ns < end_ns and len(latencies_ns) < max_calls):
            start_ns = perf_counter_ns()
            call()
            now_ns = perf_counter_ns()
            latencies_ns.append(now_ns - start_ns)
            if after is not None:
                after()
    return np.array(latencies_ns, dtype=np.int64)
