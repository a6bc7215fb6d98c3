"""Results at each rate of the paced scenario."""

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.harness.measure.candidate import Candidate, PacedBlock
from emca_deploy.harness.measure.pacing import LATE_MS
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.harness.measure.summary import summarize
from emca_deploy.results.load import Misses, PacedLatency
from emca_deploy.results.telemetry import TelemetryResult, ValueSummary, total_power
from emca_deploy.stats.confidence import exceedance_interval
from emca_deploy.stats.estimates import ratio_of_medians

__all__ = ["at_rate", "paced_doubts", "paced_notes", "paced_results"]

MOST_LATE_STARTS = 0.01
"""Share of frames that may start late before a result is not valid."""

_CLOCKS = (("nvml", "sm_clock_mhz"), ("tegrastats", "gpu_mhz"), ("cpu_frequency", "mean_mhz"))


def at_rate(name: str, rate_per_s: float) -> str:
    """Return the name of a candidate at a rate in telemetry."""
    return f"{name} at {rate_per_s:g}/s"


def paced_results(candidate: Candidate, protocol: Protocol, sampled: Mapping[str, TelemetryResult]) -> tuple[PacedLatency, ...]:
    """Return a candidate's result at each rate that it ran, in ascending order; telemetry is by `at_rate`."""
    return tuple(
        _paced_result(candidate, rate, blocks, protocol, sampled.get(at_rate(candidate.name, rate), TelemetryResult()))
        for rate, blocks in sorted(candidate.paced.items())
        if blocks
    )


def _paced_result(
    candidate: Candidate, rate_per_s: float, blocks: Sequence[PacedBlock], protocol: Protocol, telemetry: TelemetryResult
) -> PacedLatency:
    latency_ms, service_ms = ([getattr(block.frames, name) for block in blocks] for name in ("latency_ms", "service_ms"))
    processes = [block.process for block in blocks] if len(candidate.processes) > 1 else None
    of = (processes, candidate.block_processes)
    ratio, ratio_ci95 = ratio_of_medians(service_ms, candidate.calls_ms, protocol.seed, paired=False, processes=of)
    frames = sum(map(len, latency_ms))
    late = int(sum((block.frames.pacer_delay_ms > LATE_MS).sum() for block in blocks))
    return PacedLatency(
        rate_per_s=rate_per_s,
        frames=frames,
        latency_ms=summarize(latency_ms, protocol.seed, processes),
        service_ms=summarize(service_ms, protocol.seed, processes),
        overruns=int(sum(block.frames.overruns.sum() for block in blocks)),
        busy_share=rate_per_s * float(np.concatenate(service_ms).mean()) / 1000,
        idle_to_busy=ratio,
        idle_to_busy_ci95=ratio_ci95,
        late_starts=late,
        valid=late <= MOST_LATE_STARTS * frames,
        clock_mhz=_clock(telemetry),
        power=total_power(telemetry),
        misses=None if protocol.deadline_ms is None else _misses(latency_ms, protocol.deadline_ms, processes),
    )


def _misses(latency_ms: Sequence[Float64Array], deadline_ms: float, processes: Sequence[int] | None) -> Misses:
    share, interval = exceedance_interval(latency_ms, deadline_ms, processes=processes)
    return Misses(deadline_ms, int(sum((block > deadline_ms).sum() for block in latency_ms)), share, interval)


def _clock(telemetry: TelemetryResult) -> ValueSummary | None:
    found = (telemetry.sources[source].values.get(name) for source, name in _CLOCKS if source in telemetry.sources)
    return next((clock for clock in found if clock is not None and isfinite(clock.mean)), None)


def paced_doubts(results: Sequence[PacedLatency]) -> list[str]:
    """Return a warning for each rate whose result is not valid."""
    return [
        f"not valid at {each.rate_per_s:g} frames/s: {each.late_starts} of {each.frames} frames started over {LATE_MS:g} ms late "
        "although the runner was free: measure on an idle machine"
        for each in results
        if not each.valid
    ]


def paced_notes(results: Sequence[PacedLatency]) -> list[str]:
    """Return a warning for each rate that is too high for the candidate."""
    return [
        f"{each.rate_per_s:g} frames/s are more than the {each.rate_per_s / each.busy_share:.3g}/s that it can answer: the queue "
        "grows, so latencies depend on the length of a block"
        for each in results
        if each.busy_share >= 1
    ]
