"""Makes calls at once in several threads, each on a loaded model of its own."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy.typing as npt

from emca_deploy.arrays import Int64Array
from emca_deploy.harness.clock import time_calls
from emca_deploy.harness.spec import LoadedModel

__all__ = ["call_at_once"]


def call_at_once(runners: Sequence[LoadedModel], batch: npt.NDArray[Any], seconds: float, max_calls: int) -> list[Int64Array]:
    """Return the nanoseconds of each call of every runner, (calls,) int64 each.

    All start at the same moment, after one unmeasured call each, and make at least one call and together at most `max_calls`.
    """
    ready = Barrier(len(runners))

    def run(runner: LoadedModel) -> Int64Array:
        try:
            runner.infer(batch)
        except BaseException:
            ready.abort()
            raise
        ready.wait()
        return time_calls(lambda: runner.infer(batch), seconds, 1, max(1, max_calls // len(runners)))

    with ThreadPoolExecutor(len(runners)) as threads:
        started = [threads.submit(run, runner) for runner in runners]
        errors = [error for each in started if (error := each.exception()) is not None]
        for error in sorted(errors, key=lambda each: isinstance(each, BrokenBarrierError)):
            raise error
        return [each.result() for each in started]
