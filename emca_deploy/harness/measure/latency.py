"""Latency of several candidates: each in its own process, measured in short interleaved blocks.

Whatever the machine does meanwhile (heat, clocks, neighbours) hits all candidates alike, so that their ratio stays right even
where the absolute numbers do not. A round is one block of every candidate, in random order; the order is seeded.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError, InputError
from emca_deploy.harness.measure.candidate import Candidate
from emca_deploy.harness.measure.hook import Telemetry
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.harness.measure.raw_samples import RawSamples, raw_of
from emca_deploy.harness.measure.rounds import INTERRUPTED, interleave
from emca_deploy.harness.measure.stability import changes_between
from emca_deploy.harness.measure.starting import Processes, finish
from emca_deploy.harness.measure.summary import compare_candidates, result_of, summarize
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.environment import collect_environment
from emca_deploy.machines.machine_state import MachineState, read_machine_state
from emca_deploy.results.latency import Failure, LatencyResult, ProfileReport
from emca_deploy.results.telemetry import TelemetryResult

__all__ = ["LiveRun", "Protocol", "measure", "measure_raw", "measuring", "summarize"]


@dataclass
class _Run:
    """A run under way."""

    protocol: Protocol
    keep_going: bool
    candidates: list[Candidate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    first_error: EmcaError | None = None

    def failed(self, name: str, workers: Sequence[Worker], error: EmcaError) -> None:
        """Keep a candidate's error, and end its processes; without `keep_going` raise it."""
        if not self.keep_going:
            raise error
        self.first_error = self.first_error or error
        self.failures.append(Failure(name, error.problem, error.remedy, error.exit_code))
        for worker in workers:
            worker.abandon()


def measure(
    specs: Sequence[RunnerSpec],
    protocol: Protocol,
    progress: Progress | None = None,
    telemetry: Telemetry | None = None,
    *,
    keep_going: bool = False,
) -> ProfileReport:
    """Measure every candidate, and compare each of the others to the first.

    The first of the specs is the one that the others are held against; those with the same `group` are processes of one
    candidate, whose blocks alternate between them. `progress` is called with (blocks done, blocks in all); fewer are made where
    the intervals are narrow sooner.

    With `keep_going` the others are measured where a candidate fails, and what was measured before an interrupt is kept: the
    report is marked incomplete and lists the failures. Where nothing was measured, the error is raised all the same.

    Returns:
        A result for every candidate in the order of `specs`, and the comparisons: b is the first candidate, a another.

    Raises:
        InputError: no candidate, or two of one name.
        WorkerError: a candidate crashed or hung.
        EmcaError: whatever a candidate's runner raises.
        KeyboardInterrupt: as it comes; with `keep_going` only while there is nothing to keep.
    """
    return measure_raw(specs, protocol, progress, telemetry, keep_going=keep_going)[0]


def measure_raw(
    specs: Sequence[RunnerSpec],
    protocol: Protocol,
    progress: Progress | None = None,
    telemetry: Telemetry | None = None,
    *,
    keep_going: bool = False,
) -> tuple[ProfileReport, RawSamples]:
    """Return what `measure` does, and all raw samples: of the warm-up too, and when each block ran.

    Raises:
        EmcaError, KeyboardInterrupt: as `measure`.
    """
    with measuring(specs, protocol, progress, telemetry, keep_going=keep_going) as measured:
        pass
    return measured.report(), raw_of(measured.run.candidates, protocol)


@dataclass(frozen=True)
class LiveRun:
    """What `measuring` yields.

    Attributes:
        common: warnings that concern all candidates.
    """

    run: "_Run"
    stop: str
    common: list[str]
    sampled: dict[str, TelemetryResult]
    environment: dict[str, Any]

    @property
    def workers(self) -> dict[str, Worker]:
        """A process of each candidate, by the candidate's name; all end with the block."""
        return {candidate.name: candidate.living[0].worker for candidate in self.run.candidates}

    def report(self) -> ProfileReport:
        """Return what `measure` does; of processes that are alive, the memory is that until now."""
        for candidate in self.run.candidates:
            for process in candidate.living:
                if not process.worker.peak_rss_mib:
                    process.worker.note_peak()
        return _report(self.run, self.stop, self.common, self.sampled, self.environment)


@contextmanager
def measuring(
    specs: Sequence[RunnerSpec],
    protocol: Protocol,
    progress: Progress | None = None,
    telemetry: Telemetry | None = None,
    *,
    keep_going: bool = False,
) -> Iterator[LiveRun]:
    """Do what `measure` does, and leave the processes loaded until the block is left.

    Raises:
        EmcaError, KeyboardInterrupt: as `measure`.
    """
    if not specs or len({spec.name for spec in specs}) < len(specs):
        raise InputError("the candidates need different names, and at least one", "name every artifact once")
    run = _Run(protocol, keep_going)
    environment = collect_environment()
    if telemetry:
        telemetry.begin_idle()
        telemetry.end_idle()
    with ExitStack() as stack:
        processes = Processes(specs, protocol, stack, run.failed)
        run.candidates = processes.start()
        _demand_one(run)
        before, own_before, decoys_before = read_machine_state(), time.process_time(), processes.decoys_cpu_s
        stop = _interleave(run, processes, progress, telemetry)
        after = read_machine_state()
        environment |= {"state": before.to_dict(), "state_after": after.to_dict()}
        others_s = time.process_time() - own_before + processes.decoys_cpu_s - decoys_before
        common = _changes(run.candidates, before, after, others_s)
        sampled = _sampled(telemetry, run.candidates, protocol.batch)
        yield LiveRun(run, stop, common, sampled, environment)
        _finish(run.candidates, stop)


def _interleave(run: _Run, processes: Processes, progress: Progress | None, telemetry: Telemetry | None) -> str:
    """Run all blocks, and return why they ended."""
    if telemetry:
        telemetry.watch(_pids(run.candidates))
        telemetry.begin()

    def renew() -> None:
        if telemetry:
            telemetry.unwatch()
        processes.renew(run.candidates)
        if telemetry:
            telemetry.watch(_pids(run.candidates))

    def failed(candidate: Candidate, error: EmcaError) -> None:
        run.failed(candidate.name, [process.worker for process in candidate.living], error)

    told = progress or (lambda done, total: None)
    stop = interleave(run.candidates, run.protocol, told, failed, renew, processes.renewals)
    if stop == INTERRUPTED and not run.keep_going:
        raise KeyboardInterrupt
    _demand_one(run)
    return stop


def _pids(candidates: list[Candidate]) -> dict[str, int]:
    return {candidate.name: candidate.living[0].worker.pid for candidate in candidates}


def _demand_one(run: _Run) -> None:
    if not run.candidates and run.first_error is not None:
        raise run.first_error


def _changes(candidates: list[Candidate], before: MachineState, after: MachineState, own_cpu_s: float) -> list[str]:
    processes = [process for candidate in candidates for process in candidate.processes]
    workers_cpu_s = sum(process.worker.cpu_s - process.cpu_s_before for process in processes)
    return changes_between(before, after, own_cpu_s + workers_cpu_s)


def _sampled(telemetry: Telemetry | None, candidates: list[Candidate], batch: int) -> dict[str, TelemetryResult]:
    """Return what telemetry found, while the processes still live."""
    if telemetry is None:
        return {}
    lead_calls = 1 if len(candidates) > 1 else 0
    windows = {candidate.name: [block.window_ns for block in candidate.blocks] for candidate in candidates}
    inferences = {c.name: c.batch(batch) * (c.calls + lead_calls * len(c.blocks)) for c in candidates}
    return telemetry.end(windows, inferences)


def _finish(candidates: list[Candidate], stop: str) -> None:
    """Close every model; an interrupted worker is still busy, so it is ended."""
    for candidate in candidates:
        if stop != INTERRUPTED:
            finish(candidate)
            continue
        for process in candidate.living:
            process.worker.abandon()


def _report(
    run: _Run, stop: str, common: list[str], sampled: dict[str, TelemetryResult], environment: dict[str, Any]
) -> ProfileReport:
    candidates, protocol = run.candidates, run.protocol
    record = protocol.record(min(len(candidate.blocks) for candidate in candidates), stop)
    results: list[LatencyResult] = []
    for candidate in candidates:
        telemetry = sampled.get(candidate.name, TelemetryResult())
        candidate.notes.extend(telemetry.warnings)
        results.append(replace(result_of(candidate, protocol, record, common), telemetry=telemetry))
    return ProfileReport(
        results=tuple(results),
        comparisons=compare_candidates(candidates, protocol),
        environment=environment,
        complete=stop != INTERRUPTED and not run.failures,
        protocol=replace(record, in_flight=max(candidate.in_flight for candidate in candidates)),
        failures=tuple(run.failures),
    )
