"""Measure candidates in threads of this process on a simulated clock, for tests of decisions rather than of processes."""

import itertools
import os
import sys
import threading
import time
from types import SimpleNamespace, TracebackType

import pytest

from emca_deploy.errors import WorkerError
from emca_deploy.harness.accuracy import collection, corrupted
from emca_deploy.harness.measure import candidate, feed, hook, pacing, starting, tuning, worker_main
from emca_deploy.harness.measure.channel import Channel
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.machines.memory import peak_rss_mib

TICK_NS = 200
"""Step of the clock per reading: loops that wait for a time must reach it."""


class Clock:
    """Replaces the module `time`: the clock advances during sleeps, and by a tick at each reading."""

    def __init__(self) -> None:
        self._now_ns = itertools.count(time.monotonic_ns(), TICK_NS)
        self._lock = threading.Lock()

    def monotonic_ns(self) -> int:
        with self._lock:
            return next(self._now_ns)

    perf_counter_ns = monotonic_ns

    def monotonic(self) -> float:
        return self.monotonic_ns() / 1e9

    process_time = perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now_ns = itertools.count(next(self._now_ns) + int(seconds * 1e9), TICK_NS)


class InProcess(Worker):
    """A worker that serves its coordinator from a thread, over the same channel and with the same code."""

    def __enter__(self) -> "InProcess":
        (from_worker, to_coordinator), (from_coordinator, to_worker) = os.pipe(), os.pipe()
        self._channel = Channel(from_worker, to_worker)
        self._thread = threading.Thread(target=self._serve, args=(Channel(from_coordinator, to_coordinator),), daemon=True)
        self._thread.start()
        return self

    @staticmethod
    def _serve(channel: Channel) -> None:
        try:
            worker_main.serve(channel)
        finally:
            channel.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._channel.close()
        self._thread.join(10)

    @property
    def pid(self) -> int:
        """The thread's id, which /proc uses too."""
        return int(self._thread.native_id)

    def abandon(self) -> None:
        self.peak_rss_mib = peak_rss_mib(self.pid) or 0.0
        super().abandon()

    def _kill(self) -> None:
        pass

    def _died(self) -> WorkerError:
        return WorkerError(f"{self.spec.name}: its thread ended", "see what it printed")


def use_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run candidates in threads of this process."""
    for module in (starting, collection, corrupted):
        monkeypatch.setattr(module, "Worker", InProcess)
    monkeypatch.setattr(starting, "peak_rss_mib", lambda pid: 10.0)  # like those of a process of its own, not of all tests
    # A worker process collects its few objects before each block; here that would be all objects of the tests.
    nothing = dict.fromkeys(("collect", "freeze", "disable", "enable", "isenabled"), lambda: None)
    for module in (sys.modules["emca_deploy.harness.clock"], worker_main):
        monkeypatch.setattr(module, "gc", SimpleNamespace(**nothing))


def patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run candidates of the fake backend in threads of this process on a simulated clock."""
    from emca_deploy.backends.fake import runner

    use_threads(monkeypatch)
    clock = Clock()
    monkeypatch.setattr(pacing, "sleep", clock.sleep)
    for module in (candidate, hook, runner, tuning, worker_main):
        monkeypatch.setattr(module, "time", clock)
    for module in (sys.modules["emca_deploy.harness.clock"], feed, pacing, worker_main):
        monkeypatch.setattr(module, "perf_counter_ns", clock.perf_counter_ns)
