"""Samples sources in a thread, beside a measurement."""

import math
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from emca_deploy.errors import EmcaError
from emca_deploy.telemetry.source import Reading, StampedSource, TelemetrySource

__all__ = ["Recorder", "Sample"]

_JOIN_S = 5.0


@dataclass(frozen=True)
class Sample:
    """What one source said at one time.

    Attributes:
        time_ns: reading of time.monotonic_ns, half-way between the question and the answer.
        owner: the candidate it is about; None for the machine.
    """

    time_ns: int
    source: str
    values: Reading
    owner: str | None = None


class Recorder:
    """A context manager that samples while it is open. Telemetry never fails a measurement: what fails is a note.

    Each source is opened and closed with the recorder, and read every `interval_s`, unless it asks for fewer samples.

    Attributes:
        notes: what could not be had and what to do, each said once.
        core_share: processor time that the sampling itself took, of the time that it was open; 0.01 is 1 % of one core.
        reads: how many times a source was read.
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
                self._enter_source(source)
        except BaseException:
            self._stack.close()
            raise
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            self._thread = None
        for source in self._open:
            self._note_all(getattr(source, "notes", ()))
        self._open.clear()
        try:
            self._stack.close()
        except Exception as exc:  # every source was closed all the same
            self._note_all([f"a source did not close: {type(exc).__name__}: {exc}: what it said is kept"])

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples so far, in the order of time for each source."""
        return tuple(self._samples)

    def add(self, source: TelemetrySource) -> None:
        """Sample another source from now on, while the recorder is open."""
        self._enter_source(source)

    def sample_now(self) -> None:
        """Read every source once more, now: a run's last counter must not be an interval old."""
        self._read_all(self._open)

    def _enter_source(self, source: TelemetrySource) -> None:
        try:
            self._stack.enter_context(source)
        except EmcaError as exc:
            self._note_all([f"{source.name}: {exc.problem}: {exc.remedy}"])
            return
        except Exception as exc:  # a defect of a driver's library, say: not worth a run
            self._note_all([f"{source.name}: does not open: {type(exc).__name__}: {exc}: its values are absent"])
            return
        with self._lock:
            self._open.append(source)

    def _note_all(self, notes: Iterable[str]) -> None:
        self.notes.extend(note for note in notes if note not in self.notes)

    def _run(self) -> None:
        due: dict[int, float] = {}
        begin = time.monotonic()
        while not self._stopped.is_set():
            now = time.monotonic()
            ready = [source for source in tuple(self._open) if due.get(id(source), 0.0) <= now]
            for source in ready:
                due[id(source)] = now + max(self.interval_s, getattr(source, "interval_s", 0.0))
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
        owner = getattr(source, "owner", None)
        try:
            if isinstance(source, StampedSource):
                stamped = source.drain()
            else:
                begin_ns = time.monotonic_ns()
                values = source.read()
                stamped = [((begin_ns + time.monotonic_ns()) // 2, values)]
        except Exception as exc:
            self._open.remove(source)
            self._note_all([f"{source.name}: stopped during the run: {type(exc).__name__}: {exc}: its values end there"])
            return
        self.reads += 1
        for time_ns, values in stamped:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}  # NaN is no value, nor JSON
            if finite:
                self._samples.append(Sample(time_ns, source.name, finite, owner))
