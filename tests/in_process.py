"""Candidates measured in threads of this process and on a clock of its own: for what is decided about them, not how they run."""

import itertools
import os
import sys
import threading
import time
from types import SimpleNamespace, TracebackType

import pytest

from emca_deploy.errors import WorkerError
from emca_deploy.harness.accuracy import collection
from emca_deploy.harness.measure import candidate, feed, hook, starting, tuning, worker_main
from emca_deploy.harness.measure.channel import Channel
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.machines.memory import peak_rss_mib

TICK_NS = 200
"""What a look at the clock takes: loops that wait for an end must reach it."""


class Clock:
    """Stands in for the module `time`: it goes on where something sleeps, and by a tick where something looks."""

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
    """A worker that serves its coordinator from a thread; it speaks the same channel, and runs the same code."""

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
        """The thread's id, under which /proc has it too."""
        return int(self._thread.native_id)

    def abandon(self) -> None:
        self.peak_rss_mib = peak_rss_mib(self.pid) or 0.0
        super().abandon()

    def _kill(self) -> None:
        pass

    def _died(self) -> WorkerError:
        return WorkerError(f"{self.spec.name}: its thread ended", "see what it printed")


def use_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have candidates live in threads of this process."""
    for module in (starting, collection):
        monkeypatch.setattr(module, "Worker", InProcess)
    monkeypatch.setattr(starting, "peak_rss_mib", lambda pid: 10.0)  # as of a process of its own, and not of all tests
    # A process of its own collects before each block what little it has; here that would be all of the tests' objects.
    nothing = dict.fromkeys(("collect", "freeze", "disable", "enable", "isenabled"), lambda: None)
    for module in (sys.modules["emca_deploy.harness.clock"], worker_main):
        monkeypatch.setattr(module, "gc", SimpleNamespace(**nothing))


def patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have candidates of the fake backend live in threads of this process, and on a clock of their own."""
    from emca_deploy.backends.fake import runner

    use_threads(monkeypatch)
    clock = Clock()
    for module in (candidate, hook, runner, tuning, worker_main):
        monkeypatch.setattr(module, "time", clock)
    for module in (sys.modules["emca_deploy.harness.clock"], feed, worker_main):
        monkeypatch.setattr(module, "perf_counter_ns", clock.perf_counter_ns)
