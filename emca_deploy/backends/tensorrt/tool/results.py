"""A result from trtexec's output and files; its own summary must agree with this package's percentiles."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.backends.tensorrt.tool.dialects import dialect_of
from emca_deploy.backends.tensorrt.tool.exports import LayerProfile, QueryTimes
from emca_deploy.backends.tensorrt.tool.find import Trtexec
from emca_deploy.backends.tensorrt.tool.log import Summary, TrtexecLog
from emca_deploy.errors import WorkerError
from emca_deploy.harness.measure.stability import drift_warnings
from emca_deploy.harness.measure.summary import summarize
from emca_deploy.results.latency import LatencyResult, ProtocolRecord, Scenario

__all__ = ["BOUNDARY", "Timed", "disagreements", "latency_result", "measured"]

BOUNDARY = "copy to the device + GPU compute + copy back, by CUDA events; the host's enqueuing and waiting is not in it"
"""What `latency_ms` of a trtexec run contains, in every version."""

BLOCKS = 20
"""Number of consecutive blocks that the median's interval is resampled from, since neighbouring queries are alike."""

DIGITS = 2e-5
"""Relative rounding error of trtexec's output, which has six significant digits."""

ENOUGH_FOR_P99_9 = 1000
UNSTABLE_PERCENT = 2.5
"""The same limit for all versions of trtexec, which warn from 1 % on until 10.15, and from 2.5 % on since."""

MIN_QUERIES = 10
"""trtexec's default in all versions."""


@dataclass(frozen=True)
class Timed:
    """Facts that a result records about a timed engine.

    Attributes:
        target: Name of the target, "jetson" or "ssh://board".
        batch: Number of images a query.
        scenario: "single-stream" if queries were made one at a time.
        duration_s: Requested duration, in seconds.
        details: Further entries of the result's `runtime`.
    """

    artifact: str
    precision: str
    target: str
    batch: int
    scenario: Scenario
    duration_s: float
    options: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def measured(tool: Trtexec, log: TrtexecLog, times: QueryTimes) -> QueryTimes:
    """Return the queries without the warm-up; raise WorkerError where file and log differ in their number."""
    if dialect_of(tool.version).warm_up_exported:
        times = times.without_first(log.warm_up_queries or 0)
    if not times.latency_ms or log.queries not in (None, len(times.latency_ms)):
        raise WorkerError(
            f"trtexec reports {log.queries} timed queries, and exported {len(times.latency_ms)}", "run it again, for longer"
        )
    return times


def disagreements(log: TrtexecLog, times: QueryTimes) -> list[str]:
    """Return the differences between trtexec's own summary and its raw times.

    Its percentile is sorted[n - 1 - floor((1 - p) n)] in single precision, at most one place away from the order statistic.
    """
    found = []
    for name, values in (("Latency", times.latency_ms), ("GPU Compute Time", times.compute_ms)):
        summary = log.summaries.get(name)
        if summary is not None:
            found += [f"trtexec's {name} {what}" for what in _differences(summary, np.sort(np.array(values)))]
    return found


def _differences(summary: Summary, ordered: npt.NDArray[np.float64]) -> list[str]:
    last = len(ordered) - 1
    ends = {"min": (summary.min, 0, 0), "max": (summary.max, last, last)}
    ends["median"] = (summary.median, (last // 2), (last + 1) // 2)
    for percent, value in summary.percentiles.items():
        if 0 <= percent <= 100:
            place = last - int((1 - percent / 100) * (last + 1))
            ends[f"percentile({percent:g}%)"] = (value, max(place - 1, 0), min(place + 1, last))
    return [
        f"{name} is {value:g} ms, but {ordered[high]:g} ms from its times"
        for name, (value, low, high) in ends.items()
        if not ordered[max(low, 0)] * (1 - DIGITS) <= value <= ordered[max(high, 0)] * (1 + DIGITS)
    ]


def latency_result(
    tool: Trtexec, timed: Timed, log: TrtexecLog, times: QueryTimes, profile: LayerProfile | None = None
) -> LatencyResult:
    """Return a result in this package's schema from the log of a run and the times that `measured` returns."""
    blocks = np.array_split(np.array(times.latency_ms), min(BLOCKS, len(times.latency_ms)))
    doubts = _doubts(log, times, blocks)
    return LatencyResult(
        artifact=timed.artifact,
        backend="tensorrt",
        precision=timed.precision,
        target=timed.target,
        scenario=timed.scenario,
        batch=timed.batch,
        latency_ms=summarize(blocks),
        throughput_images_per_s=_images_per_s(timed, log, times),
        samples=len(times.latency_ms),
        load_ms=(log.load_s or 0.0) * 1000,
        first_inference_ms=0.0,
        peak_rss_mib=log.memory_mib or 0.0,
        stable=not doubts,
        warnings=(*doubts, *_notes(log, times)),
        samples_ms=times.latency_ms,
        runtime=_runtime(tool, timed, log, times, profile),
        device_ms=summarize(np.array_split(np.array(times.compute_ms), len(blocks))),
        protocol=_protocol(timed, times, len(blocks)),
        block_calls=tuple(len(block) for block in blocks),
    )


def _doubts(log: TrtexecLog, times: QueryTimes, blocks: list[npt.NDArray[np.float64]]) -> list[str]:
    """Return the reasons to doubt the numbers, by the same rules for all versions."""
    found = [*disagreements(log, times), *drift_warnings(blocks)]
    if log.graph_lost:
        found.append(
            "the engine could not be captured as a CUDA graph, so kernels were launched one by one and times are longer: "
            "use a fixed batch, or another version of TensorRT"
        )
    compute = np.array(times.compute_ms)
    variation = 100 * float(compute.std() / compute.mean()) if compute.mean() > 0 else 0.0
    if variation > UNSTABLE_PERCENT:
        found.append(
            f"GPU compute time has a standard deviation of {variation:.2g} %: lock the clocks, such as with jetson_clocks"
        )
    return found


def _notes(log: TrtexecLog, times: QueryTimes) -> list[str]:
    notes = [f"trtexec: {text}" for text in log.warnings]
    if len(times.latency_ms) < ENOUGH_FOR_P99_9:
        calls = len(times.latency_ms)
        notes.append(f"{calls} calls are too few for p99.9, so it is their maximum: measure longer with --duration")
    return notes


def _images_per_s(timed: Timed, log: TrtexecLog, times: QueryTimes) -> float:
    """Return images per second: from the times of calls if they are one at a time, else from trtexec's throughput in batches."""
    total_ms = sum(times.latency_ms)
    if timed.scenario == "single-stream" and total_ms > 0:
        return timed.batch * len(times.latency_ms) / total_ms * 1000
    return timed.batch * (log.queries_per_s or 0.0)


def _protocol(timed: Timed, times: QueryTimes, blocks: int) -> ProtocolRecord:
    return ProtocolRecord(
        scenario=timed.scenario,
        headline="p90" if timed.scenario == "single-stream" else "throughput",
        batch=timed.batch,
        seed=0,
        rounds=blocks,
        block_s=sum(times.latency_ms) / 1000 / blocks,
        duration_s=timed.duration_s,
        max_duration_s=None,
        interval_goal=0.0,
        min_queries=MIN_QUERIES,
        stop="fixed duration",
        timing_boundary=BOUNDARY,
        in_flight=1 if timed.scenario == "single-stream" else 2,
    )


def _runtime(tool: Trtexec, timed: Timed, log: TrtexecLog, times: QueryTimes, profile: LayerProfile | None) -> dict[str, Any]:
    untold = [name for name, value in (("load_ms", log.load_s), ("peak_rss_mib", log.memory_mib)) if value is None]
    layers = [asdict(layer) for layer in profile.layers] if profile else None
    return {
        "tool": "trtexec",
        "version": tool.version_text,
        "options": list(timed.options),
        "boundary": BOUNDARY,
        "copies_ms": {"to_device": float(np.median(times.to_device_ms)), "to_host": float(np.median(times.to_host_ms))},
        "queries_per_s": log.queries_per_s if log.queries_per_s is not None and isfinite(log.queries_per_s) else None,
        "warm_up_queries": log.warm_up_queries,
        "cuda_graph": not log.graph_lost and not any(option.startswith("--useDLACore") for option in timed.options),
        "not_told": ["first_inference_ms", *untold],  # 0 in the result
        **({"profile": {"queries": profile.queries, "layers": layers}} if profile else {}),
        **timed.details,
    }
