"""Samples sources in a thread while a measurement runs."""

import math
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from emca_deploy.errors import EmcaError
from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["Recorder", "Sample"]

_JOIN_S = 5.0


@dataclass(frozen=True)
class Sample:
    """One reading of one source.

    Attributes:
        time_ns: Reading of time.monotonic_ns, halfway between the start and the end of the read.
        owner: Name of the candidate that the reading describes; None for the machine.
    """

    time_ns: int
    source: str
    values: Reading
    owner: str | None = None


class Recorder:
    """A context manager that samples while it is open. Telemetry never fails a measurement: a failure becomes a note.

    Each source is opened and closed with the recorder, and read every `interval_s`, or less often where it asks for that.

    Attributes:
        notes: Values that could not be read, with what to do, each once.
        core_share: Processor time of the sampling thread as a share of the time it ran; 0.01 is 1 % of one core.
        reads: Number of reads of all sources.
    """

    def __init__(self, sources: Iterable[TelemetrySource], interval_s: float = 0.1) -> None:
        self.interval_s = interval_s
        self.notes: list[str] = []
        self.core_share = 0.0
        self.reads = 0
        self._sources = list(sources)
        self._open: list[TelemetrySource] = []
        self._stack = ExitStack()
        self._samples: list[Sample] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Recorder":
        try:
            for source in self._sources:
                self.add(source)
        except BaseException:
            self._stack.close()
            raise
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            self._thread = None
        for source in self._open:
            self._note_all(source.notes)
        self._open.clear()
        try:
            self._stack.close()
        except Exception as exc:  # every source was closed all the same
            self._note_all([f"a source did not close: {type(exc).__name__}: {exc}: its values are kept"])

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples so far, in order of time for each source."""
        return tuple(self._samples)

    def add(self, source: TelemetrySource) -> None:
        """Open another source and sample it from now on; one that does not open becomes a note."""
        try:
            self._stack.enter_context(source)
        except EmcaError as exc:
            self._note_all([f"{source.name}: {exc.problem}: {exc.remedy}"])
            return
        except Exception as exc:  # such as a defect in a driver's library: not a reason to lose the run
            self._note_all([f"{source.name}: does not open: {type(exc).__name__}: {exc}: its values are absent"])
            return
        with self._lock:
            self._open.append(source)

    def sample_now(self) -> None:
        """Read every source once more, because the last counter of a run must not be one interval old."""
        self._read_all(self._open)

    def _note_all(self, notes: Iterable[str]) -> None:
        self.notes.extend(note for note in notes if note not in self.notes)

    def _run(self) -> None:
        due: dict[int, float] = {}
        begin = time.monotonic()
        while not self._stopped.is_set():
            now = time.monotonic()
            ready = [source for source in tuple(self._open) if due.get(id(source), 0.0) <= now]
            for source in ready:
                due[id(source)] = now + max(self.interval_s, source.interval_s)
            self._read_all(ready)
            pause = min(due.values(), default=now + self.interval_s) - time.monotonic()
            self._stopped.wait(max(pause, 0.0))
            self.core_share = time.thread_time() / max(time.monotonic() - begin, 1e-9)

    def _read_all(self, sources: Sequence[TelemetrySource]) -> None:
        with self._lock:
            for source in tuple(sources):
                if source in self._open:
                    self._read(source)

    def _read(self, source: TelemetrySource) -> None:
        try:
            stamped = source.drain()
        except Exception as exc:
            self._open.remove(source)
            self._note_all([f"{source.name}: stopped during the run: {type(exc).__name__}: {exc}: its values end there"])
            return
        self.reads += 1
        for time_ns, values in stamped:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN
            if finite:
                self._samples.append(Sample(time_ns, source.name, finite, source.owner))
