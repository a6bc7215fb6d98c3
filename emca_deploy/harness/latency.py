"""Latency of several candidates: each in its own process, measured in short interleaved blocks.

Whatever the machine does meanwhile (heat, clocks, neighbours) hits all candidates alike, so that their ratio stays right even
where the absolute numbers do not. A round is one block of every candidate, in random order; the order is seeded.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.errors import InputError
from emca_deploy.harness.environment import CpuTimes, collect_environment, read_cpu_times
from emca_deploy.harness.latency_results import Comparison, LatencyResult, LatencySummary, ProfileReport, Scenario
from emca_deploy.harness.process import Opened, Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.harness.stability import contention_warnings, drift_warnings
from emca_deploy.harness.stats import Float64Array, median_ci, percentile, ratio_of_medians

__all__ = ["Protocol", "measure", "summarize"]


_SETTLED = 0.02
_WARM_UP_WINDOWS = 20
_FEWEST_WINDOW_CALLS = 3
_ENOUGH_FOR_P99_9 = 1000


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        scenario: "single-stream" is one call after the other; "offline" likewise in this version, with a batch that is large.
        batch: images a call.
        warmup_s: the most that a candidate is warmed up; less where successive medians agree within 2 % sooner.
        block_s: of one block; a call is never cut, so a slow candidate's block is one call.
        duration_s: measured time of each candidate.
        max_samples: calls kept of each candidate; its blocks are cut short to stay below.
        seed: of the input, the order of the blocks and the bootstrap.
        timeout_s: how long any one answer of a candidate may take.
    """

    scenario: Scenario = "single-stream"
    batch: int = 1
    warmup_s: float = 2.0
    block_s: float = 0.25
    duration_s: float = 5.0
    max_samples: int = 20_000
    seed: int = 0
    timeout_s: float = 300.0

    @property
    def rounds(self) -> int:
        """How many blocks each candidate gets."""
        return max(1, round(self.duration_s / self.block_s))


@dataclass
class _Candidate:
    worker: Worker
    opened: Opened
    first_inference_ms: float
    settled: bool = True
    cpu_s_before: float = 0.0
    blocks_ms: list[Float64Array] = field(default_factory=list)
    device_blocks_ms: list[Float64Array] = field(default_factory=list)


def measure(specs: Sequence[RunnerSpec], protocol: Protocol, progress: Progress | None = None) -> ProfileReport:
    """Measure every candidate, and compare each of the others to the first.

    Args:
        specs: the candidates, of different names; the first is the one that the others are held against.
        protocol: how.
        progress: called with (blocks done, blocks in all).

    Returns:
        A result for every candidate in the order of `specs`, and the comparisons: b is the first candidate, a another.

    Raises:
        InputError: no candidate, or two of one name.
        WorkerError: a candidate crashed or hung.
        EmcaError: whatever a candidate's runner raises.
    """
    if not specs or len({spec.name for spec in specs}) < len(specs):
        raise InputError("the candidates need different names, and at least one", "name every artifact once")
    report = progress or (lambda done, total: None)
    environment = collect_environment()
    with ExitStack() as stack:
        candidates = [_open(stack.enter_context(Worker(spec, protocol.timeout_s)), protocol) for spec in specs]
        for candidate in candidates:
            candidate.settled = _warm_up(candidate, protocol)
        before, own_before = read_cpu_times(), time.process_time()
        _interleave(candidates, protocol, report)
        common = _contention(candidates, before, time.process_time() - own_before)
        for candidate in candidates:
            candidate.worker.finish()
    results = tuple(_result(candidate, protocol, common) for candidate in candidates)
    return ProfileReport(results, _compare(candidates, protocol.seed), environment)


def summarize(blocks_ms: Sequence[Float64Array], seed: int = 0) -> LatencySummary:
    """Return the summary of a candidate's blocks.

    Args:
        blocks_ms: milliseconds a call, one array a block, at least one call in all.
        seed: of the interval's bootstrap.
    """
    ordered = np.sort(np.concatenate(blocks_ms))
    percents = {name: percentile(ordered, p) for name, p in _PERCENTILES.items()}
    return LatencySummary(
        min=float(ordered[0]),
        mean=float(ordered.mean()),
        max=float(ordered[-1]),
        std=float(ordered.std(ddof=1)) if len(ordered) > 1 else 0.0,
        p50_ci95=median_ci(blocks_ms, seed),
        **percents,
    )


_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9}


def _open(worker: Worker, protocol: Protocol) -> _Candidate:
    opened = worker.open()
    return _Candidate(worker, opened, worker.prepare(protocol.batch, protocol.seed))


def _warm_up(candidate: _Candidate, protocol: Protocol) -> bool:
    """Run until two successive windows have medians within 2 %, or the time is over; return whether they had."""
    end = time.monotonic() + protocol.warmup_s
    window_s = protocol.warmup_s / _WARM_UP_WINDOWS
    before = float("nan")
    while time.monotonic() < end:
        now = float(np.median(candidate.worker.block(window_s, _FEWEST_WINDOW_CALLS)))
        if abs(now - before) <= _SETTLED * before:
            return True
        before = now
    return protocol.warmup_s == 0


def _interleave(candidates: list[_Candidate], protocol: Protocol, report: Progress) -> None:
    rng = np.random.default_rng(protocol.seed)
    rounds = protocol.rounds
    most_calls = max(1, protocol.max_samples // rounds)
    lead_calls = 1 if len(candidates) > 1 else 0  # the others have emptied the caches
    for candidate in candidates:
        candidate.cpu_s_before = candidate.worker.cpu_s
    for done in range(rounds):
        for place, index in enumerate(rng.permutation(len(candidates))):
            candidate = candidates[index]
            latencies_ns = candidate.worker.block(protocol.block_s, 1, most_calls, lead_calls)
            candidate.blocks_ms.append(latencies_ns / 1e6)
            if candidate.worker.device_ms is not None:
                candidate.device_blocks_ms.append(candidate.worker.device_ms)
            report(done * len(candidates) + place + 1, rounds * len(candidates))


def _contention(candidates: list[_Candidate], before: CpuTimes | None, own_cpu_s: float) -> list[str]:
    workers_cpu_s = sum(candidate.worker.cpu_s - candidate.cpu_s_before for candidate in candidates)
    return contention_warnings(before, read_cpu_times(), own_cpu_s + workers_cpu_s)


def _result(candidate: _Candidate, protocol: Protocol, common: list[str]) -> LatencyResult:
    spec = candidate.worker.spec
    samples_ms = np.concatenate(candidate.blocks_ms)
    doubts = [*common, *drift_warnings(candidate.blocks_ms)]
    if not candidate.settled:
        doubts.append(f"had not settled after {protocol.warmup_s:g} s of warm-up: give it longer with --warmup")
    notes = []
    if len(samples_ms) < _ENOUGH_FOR_P99_9:
        notes.append(f"{len(samples_ms)} calls are too few for p99.9, which is their maximum: measure longer with --duration")
    return LatencyResult(
        artifact=spec.artifact or spec.name,
        backend=spec.backend,
        precision=spec.precision,
        target=spec.target,
        scenario=protocol.scenario,
        batch=protocol.batch,
        latency_ms=summarize(candidate.blocks_ms, protocol.seed),
        throughput_images_per_s=protocol.batch * len(samples_ms) / float(samples_ms.sum()) * 1000,
        samples=len(samples_ms),
        load_ms=candidate.opened.load_ms,
        first_inference_ms=candidate.first_inference_ms,
        peak_rss_mib=candidate.worker.peak_rss_mib,
        stable=not doubts,
        warnings=(*doubts, *notes),
        samples_ms=tuple(float(value) for value in samples_ms),
        runtime=candidate.opened.runtime,
        device_ms=summarize(candidate.device_blocks_ms, protocol.seed) if candidate.device_blocks_ms else None,
    )


def _compare(candidates: list[_Candidate], seed: int) -> tuple[Comparison, ...]:
    first, *others = candidates
    comparisons = []
    for other in others:
        ratio, interval = ratio_of_medians(first.blocks_ms, other.blocks_ms, seed)
        comparisons.append(Comparison(other.worker.spec.name, first.worker.spec.name, ratio, interval))
    return tuple(comparisons)
