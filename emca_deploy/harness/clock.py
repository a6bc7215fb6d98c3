"""Timing calls: the monotonic nanosecond clock, with the garbage collector out of the way."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns

import numpy as np

from emca_deploy.arrays import Int64Array

__all__ = ["elapsed_ms", "keep_from_collection", "no_garbage_collection", "time_calls"]


def keep_from_collection() -> None:
    """Collect a last time and leave out, from now on, whatever is there: libraries and a model, which live on anyway.

    To walk all of them takes 10 to 24 ms with a runtime loaded and empties the caches: before each block it made the first call
    5 to 12 % slower, and with it, where a block has six, the median by 1 %.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect now and not again until the end: a collection inside a call would be measured as the model's.

    Within another one this does nothing.
    """
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
    """Call until the time is used, and return nanoseconds of every call, in order, (calls,) int64.

    No call starts after that time once `min_calls` are made, nor after `max_calls`. `after` is called after every call: its time,
    and all others between two calls, are not counted.
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


def elapsed_ms(start_ns: int) -> float:
    """Return the milliseconds since `perf_counter_ns()` was `start_ns`."""
    return (perf_counter_ns() - start_ns) / 1e6
