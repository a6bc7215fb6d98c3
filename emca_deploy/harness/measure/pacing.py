"""Makes calls at a rate, as frames come from a camera: in an open loop, in which a late frame waits and none is skipped."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns, sleep

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array, Int64Array

__all__ = ["LATE_MS", "Frames", "pace"]

LATE_MS = 0.5
"""A frame that the pacer starts later than this, although the runner is free, tells nothing about the runner."""

_SPIN_NS = 200_000
"""The last part of a wait, in which the clock is read over and over: a sleep ends up to 0.1 ms late. A longer spin would keep
the core's clock up, which a paced run is to show."""


@dataclass(frozen=True)
class Frames:
    """Times of consecutive frames in ns of one clock, (frames,) int64 each.

    Attributes:
        due_ns: When each frame comes: the start plus k / rate.
        start_ns: When its call starts.
        end_ns: When its answer is there.
        period_ns: Time between two frames.
    """

    due_ns: Int64Array
    start_ns: Int64Array
    end_ns: Int64Array
    period_ns: float

    @property
    def latency_ms(self) -> Float64Array:
        """Milliseconds from when each frame comes to its answer, (frames,)."""
        return (self.end_ns - self.due_ns) / 1e6

    @property
    def service_ms(self) -> Float64Array:
        """Milliseconds of each call alone, (frames,)."""
        return (self.end_ns - self.start_ns) / 1e6

    @property
    def overruns(self) -> npt.NDArray[np.bool_]:
        """Whether each frame is answered after the next one is due, (frames,)."""
        return np.asarray(self.end_ns - self.due_ns > self.period_ns)

    @property
    def pacer_delay_ms(self) -> Float64Array:
        """Milliseconds that each call starts later than by a pacer that is never late, with the same calls, (frames,).

        A pacer that is stopped while the runner is free delays every frame of that time, and those that queue behind them.
        """
        delays, delay, free = [], 0, 0
        for due, start, end in zip(self.due_ns.tolist(), self.start_ns.tolist(), self.end_ns.tolist(), strict=True):
            delay = min(delay, free - due) if free > due else start - due
            free = end
            delays.append(delay)
        return np.array(delays, np.float64) / 1e6


def pace(call: Callable[[], object], rate_per_s: float, frames: int) -> Frames:
    """Call once for each frame, at its time or when the call before has ended, and return the times of all frames.

    The first frame comes after one period. All times are those of `perf_counter_ns`.
    """
    period_ns = 1e9 / rate_per_s
    begin_ns = perf_counter_ns()
    due_ns = np.array([begin_ns + round((k + 1) * period_ns) for k in range(frames)], np.int64)
    starts: list[int] = []
    ends: list[int] = []
    for due in due_ns.tolist():
        starts.append(_wait_until(due))
        call()
        ends.append(perf_counter_ns())
    return Frames(due_ns, np.array(starts, np.int64), np.array(ends, np.int64), period_ns)


def _wait_until(due_ns: int) -> int:
    """Sleep, then spin, until a time; return the time then."""
    now_ns = perf_counter_ns()
    if due_ns - now_ns > _SPIN_NS:
        sleep((due_ns - now_ns - _SPIN_NS) / 1e9)
        now_ns = perf_counter_ns()
    while now_ns < due_ns:
        now_ns = perf_counter_ns()
    return now_ns
