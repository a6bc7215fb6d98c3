"""Warm-up: until a candidate is steady, and no longer."""

import time
from dataclasses import dataclass

import numpy as np

from emca_deploy.harness.measure.worker import Worker

__all__ = ["WarmedUp", "warm_up"]

_SETTLED = 0.02
_WINDOWS = 20
_FEWEST_CALLS = 3


@dataclass(frozen=True)
class WarmedUp:
    """How a process's warm-up went.

    Attributes:
        settled: whether the medians of two successive windows agreed within 2 %.
        medians_ms: median of every window, in order.
    """

    settled: bool
    seconds: float
    calls: int
    medians_ms: tuple[float, ...]


def warm_up(worker: Worker, limit_s: float) -> WarmedUp:
    """Run until two successive windows have medians within 2 %, or the time is over; a limit of 0 runs nothing and is settled.

    Raises:
        EmcaError: as `Worker.block`.
    """
    started = time.monotonic()
    medians: list[float] = []
    calls, settled = 0, limit_s == 0
    while not settled and time.monotonic() - started < limit_s:
        window_ns = worker.block(limit_s / _WINDOWS, _FEWEST_CALLS)
        calls += len(window_ns)
        medians.append(float(np.median(window_ns)) / 1e6)
        settled = len(medians) > 1 and abs(medians[-1] - medians[-2]) <= _SETTLED * medians[-2]
    return WarmedUp(settled, time.monotonic() - started, calls, tuple(medians))
