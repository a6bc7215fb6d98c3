"""A build in a separate thread, with progress and a way to stop it."""

import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from typing import Any

__all__ = ["PER_MILLE", "PhaseTracker", "Progress", "run_build"]

Progress = Callable[[int, int], None]
"""A callable that gets (done, total)."""

PER_MILLE = 1000
POLL_S = 0.1


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTracker:
    """Reports TensorRT's nested phases as one number that only grows."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._phases: dict[str, _Phase] = {}
        self._last = -1

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Enter a phase of `steps` steps, inside the phase `parent`."""
        self._phases[name] = _Phase(parent, max(1, steps))
        self._tell()

    def step(self, name: str, step: int) -> None:
        """Finish a phase's step, counted from 0."""
        if name in self._phases:
            self._phases[name].done = step + 1
            self._tell()

    def finish(self, name: str) -> None:
        """Leave a phase."""
        phase = self._phases.pop(name, None)
        if phase is not None and phase.parent is None:
            self._send(PER_MILLE)

    def _tell(self) -> None:
        share, total, inside = 1.0, 0.0, None
        for name, phase in self._phases.items():  # in the order of entry, the outermost first
            if phase.parent != inside:
                continue
            share /= phase.steps
            total += share * min(phase.done, phase.steps)
            inside = name
            if phase.done >= phase.steps:
                break
        self._send(min(PER_MILLE, int(total * PER_MILLE)))

    def _send(self, per_mille: int) -> None:
        if per_mille > self._last:
            self._last = per_mille
            self._report(per_mille, PER_MILLE)


def run_build(trt: Any, builder: Any, network: Any, config: Any, tracker: PhaseTracker | None) -> Any:
    """Build in a separate thread, which lets Ctrl-C work; return the serialized engine, None where the build fails.

    A progress monitor passes the phases to the tracker; None is for versions without one, whose builds cannot be stopped.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the build has ended, at its next step.
    """
    stop, begun, engine = threading.Event(), threading.Event(), futures.Future[Any]()
    monitor = None if tracker is None else _monitor(trt, tracker, stop)
    if monitor is not None:
        config.progress_monitor = monitor

    def work(_: Any) -> None:
        begun.set()
        try:
            engine.set_result(None if stop.is_set() else builder.build_serialized_network(network, config))
        except BaseException as exc:  # raised again in the caller's thread
            engine.set_exception(exc)

    # A future, not Thread.join: before Python 3.13 a join that Ctrl-C interrupts marks the thread as ended.
    try:
        # The thread keeps the monitor alive: TensorRT holds no reference to it.
        threading.Thread(target=work, args=(monitor,), name="tensorrt build").start()
        while not engine.done():
            futures.wait([engine], POLL_S)
    except KeyboardInterrupt:
        stop.set()
        if begun.is_set():  # else the thread sees `stop` and does not build
            futures.wait([engine])
        raise
    return engine.result()


def _monitor(trt: Any, tracker: PhaseTracker, stop: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tracker.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tracker.step(phase_name, step)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            tracker.finish(phase_name)

    return Monitor()
