"""Turns a measured candidate's blocks into a result, and two candidates' blocks into a ratio."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.harness.measure.candidate import Candidate
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.harness.measure.stability import drift_warnings
from emca_deploy.results.latency import Comparison, LatencyResult, ProtocolRecord, WarmUp, verdict_of
from emca_deploy.results.load import LatencySummary
from emca_deploy.stats.confidence import percentile_bound
from emca_deploy.stats.estimates import median_ci, percentile, ratio_of_medians

__all__ = ["compare_candidates", "result_of", "summarize"]

_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9}
_ENOUGH_FOR_P99_9 = 1000


def summarize(blocks_ms: Sequence[Float64Array], seed: int = 0, processes: Sequence[int] | None = None) -> LatencySummary:
    """Return the summary of a candidate's blocks: milliseconds per call, one array per block, with at least one call in total.

    `processes` is the process of each block, where there are several.
    """
    ordered = np.sort(np.concatenate(blocks_ms))
    percents = {name: percentile(ordered, p) for name, p in _PERCENTILES.items()}
    return LatencySummary(
        min=float(ordered[0]),
        mean=float(ordered.mean()),
        max=float(ordered[-1]),
        std=float(ordered.std(ddof=1)) if len(ordered) > 1 else 0.0,
        p50_ci95=median_ci(blocks_ms, seed, processes),
        **percents,
        p90_upper95=percentile_bound(ordered, 90.0),
        p95_upper95=percentile_bound(ordered, 95.0),
        p99_upper95=percentile_bound(ordered, 99.0),
        p99_9_upper95=percentile_bound(ordered, 99.9),
    )


def result_of(candidate: Candidate, protocol: Protocol, record: ProtocolRecord, common: Sequence[str]) -> LatencyResult:
    """Return the result of a candidate with at least one block."""
    spec, processes = candidate.spec, candidate.processes
    artifacts = [process.artifact for process in processes]
    several = len(set(artifacts)) > 1
    doubts = (*common, *_doubts(candidate, protocol), *candidate.notes)
    samples_ms = np.concatenate(candidate.calls_ms)
    rate, rate_ci95 = _throughput(candidate, protocol)
    device_ms = candidate.device_ms
    return LatencyResult(
        artifact=candidate.name if several else artifacts[0],
        backend=spec.backend,
        precision=spec.precision,
        target=spec.target,
        scenario=protocol.scenario,
        batch=candidate.batch(protocol.batch),
        latency_ms=summarize(candidate.calls_ms, protocol.seed, candidate.block_processes),
        throughput_images_per_s=rate,
        samples=len(samples_ms),
        load_ms=float(np.median([process.opened.load_ms for process in processes])),
        first_inference_ms=float(np.median([process.prepared.first_inference_ms for process in processes])),
        peak_rss_mib=max(process.worker.peak_rss_mib for process in processes),
        stable=not doubts,
        warnings=(*doubts, *_notes(candidate, record)),
        samples_ms=tuple(float(value) for value in samples_ms),
        runtime=processes[0].prepared.runtime,
        device_ms=summarize(device_ms, protocol.seed) if len(device_ms) == len(candidate.blocks) else None,
        protocol=replace(record, warm_up=_slowest_warm_up(candidate), in_flight=candidate.in_flight),
        throughput_ci95=rate_ci95,
        builds=tuple(artifacts) if several else (),
        block_calls=tuple(len(block.calls_ms) for block in candidate.blocks),
        block_builds=tuple(candidate.block_processes or ()),
        block_wall_ms=tuple(block.wall_ms for block in candidate.blocks) if protocol.scenario == "offline" else (),
    )


def compare_candidates(candidates: Sequence[Candidate], protocol: Protocol) -> tuple[Comparison, ...]:
    """Compare each of the others, as a, with the first candidate, as b."""
    first, *others = candidates
    offline = protocol.scenario == "offline"
    comparisons = []
    for other in others:
        rounds = min(len(first.blocks), len(other.blocks))  # an interrupt may have come in the middle of a round
        ours, theirs = (one.headline_ms(protocol.batch, offline=offline)[:rounds] for one in (first, other))
        one, another = (None if each is None else each[:rounds] for each in (first.block_processes, other.block_processes))
        ratio, interval = ratio_of_medians(ours, theirs, protocol.seed, processes=(one, another))
        comparisons.append(Comparison(other.name, first.name, ratio, interval, verdict_of(interval)))
    return tuple(comparisons)


def _throughput(candidate: Candidate, protocol: Protocol) -> tuple[float, tuple[float, float] | None]:
    """Return images per second; offline by wall time, and with its interval."""
    images = candidate.batch(protocol.batch)
    if protocol.scenario != "offline":
        total_ms = sum(float(block.sum()) for block in candidate.calls_ms)
        return images * candidate.calls / total_ms * 1000, None
    per_image_ms = candidate.headline_ms(protocol.batch, offline=True)
    low_ms, high_ms = median_ci(per_image_ms, protocol.seed, candidate.block_processes)
    return images * candidate.calls / candidate.wall_s, (1000 / high_ms, 1000 / low_ms)


def _doubts(candidate: Candidate, protocol: Protocol) -> list[str]:
    """Return the reasons to doubt this candidate's numbers."""
    doubts: list[str] = []
    for index in range(len(candidate.processes)):
        of_process = [block.calls_ms for block in candidate.blocks if block.process == index]
        doubts += [warning for warning in drift_warnings(of_process) if warning not in doubts]
    if not all(process.warm_up.settled for process in candidate.processes if process.warm_up is not None):
        doubts.append(f"latency was not steady after {protocol.warmup_s:g} s of warm-up: warm up longer with --warmup")
    return doubts


def _notes(candidate: Candidate, record: ProtocolRecord) -> list[str]:
    """Return remarks that do not cast doubt on the numbers."""
    notes = []
    if candidate.calls < _ENOUGH_FOR_P99_9:
        notes.append(f"{candidate.calls} calls are too few for p99.9, which is then the maximum: measure longer with --duration")
    if record.stop == "time limit":
        few = (
            f"only {candidate.calls} calls were made"
            if candidate.calls < record.min_queries
            else "intervals are wider than the goal"
        )
        notes.append(f"the time limit ended the run, so {few}: raise it with --max-duration")
    return notes


def _slowest_warm_up(candidate: Candidate) -> WarmUp | None:
    found = [process.warm_up for process in candidate.processes if process.warm_up is not None]
    slowest = max(found, key=lambda warm: warm.seconds, default=None)
    return None if slowest is None else replace(slowest, settled=all(warm.settled for warm in found))
