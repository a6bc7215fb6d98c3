"""Measures the latency of several candidates: each in its own process, in short alternating blocks.

A change of the machine (heat, clocks, other work) affects all candidates alike, so their ratio stays right even where the
absolute numbers do not. A round is one block of every candidate in random order; the order is seeded.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError, InputError
from emca_deploy.harness.measure.candidate import Candidate
from emca_deploy.harness.measure.crowd_summary import co_run_result, crowd_results, end_to_end_result, knee_of, real_images_result
from emca_deploy.harness.measure.hook import Telemetry
from emca_deploy.harness.measure.outliers import outliers_of
from emca_deploy.harness.measure.paced_summary import at_rate, paced_doubts, paced_notes, paced_results
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.harness.measure.rate_search import search_rates
from emca_deploy.harness.measure.raw_samples import RawSamples, raw_of
from emca_deploy.harness.measure.rounds import INTERRUPTED, interleave
from emca_deploy.harness.measure.stability import changes_between
from emca_deploy.harness.measure.starting import Processes, finish
from emca_deploy.harness.measure.summary import compare_candidates, result_of
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.environment import collect_environment
from emca_deploy.machines.machine_state import read_machine_state
from emca_deploy.results.latency import Failure, ProfileReport
from emca_deploy.results.load import HighestRate
from emca_deploy.results.telemetry import TelemetryResult
from emca_deploy.telemetry.recorder import Sample

__all__ = ["LiveRun", "Protocol", "measure", "measuring"]


@dataclass
class LiveRun:
    """A run under way. `measuring` yields it when everything is measured and the processes still live.

    Attributes:
        stop: Reason for the end; see `ProtocolRecord`.
        common: Warnings that concern all candidates.
        sampled: Telemetry by candidate, and by its name at a rate.
        samples: Every reading of the telemetry.
        highest_rates: Highest rate that meets the deadline, by candidate.
    """

    protocol: Protocol
    keep_going: bool
    environment: dict[str, Any]
    candidates: list[Candidate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    first_error: EmcaError | None = None
    stop: str = ""
    common: list[str] = field(default_factory=list)
    sampled: dict[str, TelemetryResult] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    highest_rates: dict[str, HighestRate] = field(default_factory=dict)

    @property
    def workers(self) -> dict[str, Worker]:
        """One worker of each candidate, by the candidate's name; all end with the `with` block."""
        return {candidate.name: candidate.living[0].worker for candidate in self.candidates}

    def report(self) -> ProfileReport:
        """Return the report; the peak memory of a live process is that until now."""
        for candidate in self.candidates:
            for process in candidate.living:
                if not process.worker.peak_rss_mib:
                    process.worker.note_peak()
        record = self.protocol.record(min(len(candidate.blocks) for candidate in self.candidates), self.stop)
        results = []
        for candidate in self.candidates:
            telemetry = self.sampled.get(candidate.name, TelemetryResult())
            paced = paced_results(candidate, self.protocol, self.sampled)
            crowds = crowd_results(candidate, self.protocol)
            candidate.notes.extend((*telemetry.warnings, *paced_doubts(paced)))
            result = result_of(candidate, self.protocol, record, self.common)
            results.append(
                replace(
                    result,
                    warnings=(*result.warnings, *paced_notes(paced)),
                    telemetry=telemetry,
                    paced=paced,
                    highest_rate=self.highest_rates.get(candidate.name),
                    concurrency=crowds,
                    knee=knee_of(crowds),
                    real_images=real_images_result(candidate, self.protocol),
                    end_to_end=end_to_end_result(candidate, self.protocol),
                    outliers=outliers_of(candidate, self.samples),
                    co_run=co_run_result(candidate, self.candidates, self.protocol),
                )
            )
        return ProfileReport(
            results=tuple(results),
            comparisons=compare_candidates(self.candidates, self.protocol),
            environment=self.environment,
            complete=self.stop != INTERRUPTED and not self.failures,
            protocol=replace(record, in_flight=max(candidate.in_flight for candidate in self.candidates)),
            failures=tuple(self.failures),
        )

    def raw(self) -> RawSamples:
        """Return all raw samples: those of the warm-up too, and the time of each block."""
        return raw_of(self.candidates, self.protocol)

    def _failed(self, name: str, workers: Sequence[Worker], error: EmcaError) -> None:
        """Keep a candidate's error, and end its processes; without `keep_going` raise it."""
        if not self.keep_going:
            raise error
        self.first_error = self.first_error or error
        self.failures.append(Failure(name, error.problem, error.remedy, error.exit_code))
        for worker in workers:
            worker.abandon()

    def _demand_one(self) -> None:
        if not self.candidates and self.first_error is not None:
            raise self.first_error

    def _interleave(self, processes: Processes, progress: Progress | None, telemetry: Telemetry | None) -> None:
        """Run all blocks, and set `stop`."""

        def watch() -> None:
            if telemetry:
                telemetry.watch({name: worker.pid for name, worker in self.workers.items()})

        def renew() -> None:
            if telemetry:
                telemetry.unwatch()
            processes.renew(self.candidates)
            watch()

        def failed(candidate: Candidate, error: EmcaError) -> None:
            self._failed(candidate.name, [process.worker for process in candidate.living], error)

        watch()
        if telemetry:
            telemetry.begin()
        report = progress or (lambda done, total: None)
        self.stop = interleave(self.candidates, self.protocol, report, failed, renew, processes.renewals)
        if self.protocol.searches and self.stop != INTERRUPTED:
            self.highest_rates, self.stop = search_rates(self.candidates, self.protocol, report, failed)
        if self.stop == INTERRUPTED and not self.keep_going:
            raise KeyboardInterrupt
        self._demand_one()

    def _end_telemetry(self, telemetry: Telemetry) -> None:
        lead_calls = 1 if len(self.candidates) > 1 else 0
        windows, inferences = {}, {}
        for one in self.candidates:
            batch = one.batch(self.protocol.batch)
            windows[one.name] = [block.window_ns for block in one.blocks]
            inferences[one.name] = batch * (one.calls + lead_calls * len(one.blocks))
            for rate, blocks in one.paced.items():
                windows[at_rate(one.name, rate)] = [block.window_ns for block in blocks]
                frames = sum(len(block.frames.due_ns) for block in blocks)
                inferences[at_rate(one.name, rate)] = batch * (frames + lead_calls * len(blocks))
        self.sampled = telemetry.end(windows, inferences)
        self.samples = telemetry.samples

    def _finish(self) -> None:
        """Close every model; an interrupted worker is still busy, so it is ended."""
        for candidate in self.candidates:
            if self.stop != INTERRUPTED:
                finish(candidate)
                continue
            for process in candidate.living:
                process.worker.abandon()


def measure(
    specs: Sequence[RunnerSpec],
    protocol: Protocol,
    progress: Progress | None = None,
    telemetry: Telemetry | None = None,
    *,
    keep_going: bool = False,
) -> ProfileReport:
    """Measure every candidate, and compare each of the others with the first.

    Specs with the same `group` are processes of one candidate, which run its blocks in turn. `progress` is called with (blocks
    done, blocks in total); fewer blocks run where the intervals are narrow sooner.

    With `keep_going`, the other candidates are measured where one fails, and an interrupt keeps what was measured: the report is
    marked incomplete and lists the failures. The error is still raised where nothing was measured.

    Returns:
        A result for every candidate in the order of `specs`, and the comparisons: b is the first candidate, a another.

    Raises:
        InputError: there is no candidate, or two have one name.
        WorkerError: a candidate crashed or hung.
        EmcaError: a candidate's runner raised it.
        KeyboardInterrupt: the user interrupted the run; with `keep_going` only while nothing was measured.
    """
    with measuring(specs, protocol, progress, telemetry, keep_going=keep_going) as run:
        pass
    return run.report()


@contextmanager
def measuring(
    specs: Sequence[RunnerSpec],
    protocol: Protocol,
    progress: Progress | None = None,
    telemetry: Telemetry | None = None,
    *,
    keep_going: bool = False,
) -> Iterator[LiveRun]:
    """Measure as `measure` does, and keep the processes loaded until the `with` block ends.

    Raises:
        EmcaError, KeyboardInterrupt: as `measure`.
    """
    if not specs or len({spec.name for spec in specs}) < len(specs):
        raise InputError("the candidates need different names, and at least one", "name every artifact once")
    run = LiveRun(protocol, keep_going, collect_environment())
    if telemetry:
        telemetry.sample_idle()
    with ExitStack() as stack:
        processes = Processes(specs, protocol, stack, run._failed)
        run.candidates = processes.start()
        run._demand_one()
        before, own_before, decoys_before = read_machine_state(), time.process_time(), processes.decoys_cpu_s
        run._interleave(processes, progress, telemetry)
        after = read_machine_state()
        run.environment |= {"state": before.to_dict(), "state_after": after.to_dict()}
        own_cpu_s = time.process_time() - own_before + processes.decoys_cpu_s - decoys_before
        own_cpu_s += sum(process.worker.cpu_s - process.cpu_s_before for one in run.candidates for process in one.processes)
        run.common = changes_between(before, after, own_cpu_s)
        if telemetry:
            run._end_telemetry(telemetry)
        yield run
        run._finish()
