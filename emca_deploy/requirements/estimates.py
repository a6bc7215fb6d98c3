"""Estimates the figures of one candidate from its document, each with its interval."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.errors import InputError
from emca_deploy.requirements.documents import MeasuredCandidate
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.requirements import CONFIDENCE
from emca_deploy.results.telemetry import total_power
from emca_deploy.stats.confidence import (
    FEWEST_PROCESSES,
    calls_needed,
    cluster_of_blocks,
    mean_interval,
    percentile_interval,
    share_interval,
    widened,
)
from emca_deploy.stats.estimates import paired_difference_ci
from emca_deploy.stats.paired import images_needed

__all__ = ["Estimate", "Spread", "estimate", "processes_of"]

_PERCENTS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
_FEWEST_BLOCKS = 4
_LONGER = "measure longer: profile --duration"
_MOST_IMAGES = 10**7


def _unknown(limit: float) -> None:
    del limit


@dataclass(frozen=True)
class Spread:
    """How much a figure's logarithm differs between runs on one machine.

    Attributes:
        deviation: Standard deviation.
        degrees: Degrees of freedom; 0 for the default, which counts as known exactly.
        source: Where it comes from, in words.
    """

    deviation: float
    degrees: int
    source: str


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval at `CONFIDENCE`.

    Attributes:
        low: Lower end; None where the measurement gives none.
        high: Upper end; None where the measurement gives none.
        method: How the interval was made.
        images: Function that returns about how many images would decide about a limit; None where unknown.
        seconds: Function that returns about how many measured seconds would; None where unknown.
        hint: What to do to decide, in words.
        baseline: Name of the candidate that it is compared with.
    """

    value: float
    low: float | None
    high: float | None
    method: str
    images: Callable[[float], int | None] = _unknown
    seconds: Callable[[float], float | None] = _unknown
    hint: str = ""
    baseline: str | None = None


def estimate(figure: str, candidate: MeasuredCandidate, spread: Spread) -> Estimate | None:
    """Return a figure of a candidate; None where its document lacks it. `slowdown` is in `slowdown.py`.

    Raises:
        InputError: the document has the figure, but not the samples that its interval needs.
    """
    if figure == "size":
        return None if candidate.file_mib is None else _exact(candidate.file_mib, "size of the file")
    if figure in ("drop", "mask-drop", "top1", "agreement"):
        return _of_images(figure, candidate)
    if candidate.latency is None:
        return None
    if figure == "energy":
        return _energy(candidate.latency, spread)
    return _throughput(candidate) if figure == "throughput" else _percentile(figure, candidate)


def processes_of(result: LatencyResult) -> tuple[int, ...] | None:
    """Return the process of each block; None where one process ran all."""
    return result.block_builds or None


def _exact(value: float, method: str) -> Estimate:
    return Estimate(value, value, value, method)


def _of_images(figure: str, candidate: MeasuredCandidate) -> Estimate | None:
    report = candidate.accuracy
    if report is not None and not 0 < report.samples <= _MOST_IMAGES:
        raise InputError(f"{candidate.name}: has {report.samples:,} images", "measure again: validate")
    if isinstance(report, DetectionReport):
        return _ap_drop(figure, report)
    if report is None:
        return None
    if figure == "drop":
        return _drop(report)
    share = report.top1 if figure == "top1" else None if report.reference is None else report.reference.agreement
    if share is None or figure == "mask-drop":
        return None
    if not 0 <= share <= 100:
        raise InputError(f"{candidate.name}: {figure} is {share:g} %", "measure again: validate")
    low, high = share_interval(round(share / 100 * report.samples), report.samples, CONFIDENCE)

    def more(limit: float) -> int | None:
        distance = abs(limit - share) / 100
        return round(share / 100 * (1 - share / 100) * (3.1 / distance) ** 2) if distance and 0 < share < 100 else None

    return Estimate(share, 100 * low, 100 * high, f"exact binomial interval, {report.samples:,} images", images=more)


def _drop(report: AccuracyReport) -> Estimate | None:
    reference = report.reference
    if reference is None or reference.top1_drop is None:
        return None
    if reference.flips is None or reference.flips.lost is None or reference.flips.won is None:
        assert reference.top1_drop_ci95 is not None
        return _from_ci95(reference.top1_drop, reference.top1_drop_ci95, reference.artifact, report.samples)
    lost, won, images = reference.flips.lost, reference.flips.won, report.samples
    if min(lost, won) < 0 or lost + won > images:
        raise InputError(f"{report.artifact}: {lost} and {won} flips of {images} images", "measure again: validate")
    low, high = paired_difference_ci(lost, won, images, CONFIDENCE)
    method = f"Tango's interval for paired proportions, {images:,} images"
    return Estimate(
        reference.top1_drop,
        100 * low,
        100 * high,
        method,
        images=lambda limit: images_needed(lost, won, images, limit, CONFIDENCE),
        baseline=reference.artifact,
    )


def _ap_drop(figure: str, report: DetectionReport) -> Estimate | None:
    against = report.reference
    if against is None or figure not in ("drop", "mask-drop"):
        return None
    drop, ci95 = (
        (against.box_ap_drop, against.box_ap_drop_ci95) if figure == "drop" else (against.mask_ap_drop, against.mask_ap_drop_ci95)
    )
    return None if drop is None or ci95 is None else _from_ci95(drop, ci95, against.artifact, report.samples)


def _from_ci95(drop: float, ci95: tuple[float, float], reference: str, images: int) -> Estimate:
    """Return a drop whose 95 % interval grows as that of a normal distribution does."""
    factor = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) / NormalDist().inv_cdf(0.975)
    low, high = (drop + factor * (end - drop) for end in ci95)

    def more(limit: float) -> int | None:
        grown = _growth(drop, low, high, limit)
        return None if grown is None else round(images * grown)

    return Estimate(drop, low, high, f"from the 95 % interval, {images:,} images", images=more, baseline=reference)


def _growth(value: float, low: float, high: float, limit: float) -> float | None:
    """Return how many times as many measurements would shrink an interval until it does not contain a limit."""
    distance = limit - value
    half = high - value if distance > 0 else value - low
    return (half / distance) ** 2 if distance else None


def _energy(result: LatencyResult, spread: Spread) -> Estimate | None:
    power = next(iter(total_power(result.telemetry).values()), None)
    if power is None or power.energy_per_inference_mj is None:
        return None
    value = power.energy_per_inference_mj
    if value <= 0:
        return None
    low, high = widened(value, (value, value), spread.deviation, spread.degrees, CONFIDENCE)
    hint = "the spread of more runs of this machine, added with `history add`, replaces the default"
    return Estimate(value, low, high, f"spread between runs: {spread.source}", hint=hint)


def _samples_of(candidate: MeasuredCandidate, read: str) -> tuple[list[Float64Array], tuple[int, ...] | None]:
    run, result = candidate.run, candidate.latency
    assert run is not None
    assert result is not None
    blocks: list[Float64Array] = getattr(run, read)(0)
    processes = processes_of(result)
    kept = [index for index, block in enumerate(blocks) if len(block)]
    return [blocks[index] for index in kept], None if processes is None else tuple(processes[index] for index in kept)


def _percentile(figure: str, candidate: MeasuredCandidate) -> Estimate:
    blocks, processes = _samples_of(candidate, "calls")
    if len(blocks) < _FEWEST_BLOCKS:
        raise InputError(f"{candidate.name}: has {len(blocks)} blocks of calls, too few for an interval", _LONGER)
    percent, calls = _PERCENTS[figure], sum(map(len, blocks))
    value, (low, high) = percentile_interval(blocks, percent, CONFIDENCE, processes)
    seconds = sum(float(block.sum()) for block in blocks) / 1000

    def more(limit: float) -> float | None:
        factor = calls_needed(blocks, percent, limit, CONFIDENCE, processes)
        return None if factor is None else seconds * factor

    method = f"order statistics of {calls:,} calls in {_clusters(blocks, processes)}"
    return Estimate(value, low, high, method, seconds=more, hint=_LONGER)


def _clusters(blocks: list[Float64Array], processes: tuple[int, ...] | None) -> str:
    number = max(cluster_of_blocks(blocks, processes)) + 1
    several = processes is not None and len(set(processes)) >= FEWEST_PROCESSES
    return f"{number} processes" if several else f"{number} runs of blocks"


def _throughput(candidate: MeasuredCandidate) -> Estimate:
    result: Any = candidate.latency
    blocks, processes = _samples_of(candidate, "blocks")
    values = np.array([block.mean() for block in blocks])
    if values.min() <= 0:
        raise InputError(f"{candidate.name}: has blocks that took no time", "measure again: profile")
    mean, low, high = mean_interval(values, cluster_of_blocks(blocks, processes), CONFIDENCE)
    rate = result.throughput_images_per_s
    ends = (rate * mean / high, rate * mean / low if low > 0 else None)
    seconds = sum(result.block_wall_ms or [float(block.sum()) for block in blocks]) / 1000

    def more(limit: float) -> float | None:
        factor = _growth(rate, ends[0], ends[1] or float("inf"), limit)
        return None if factor is None or factor == float("inf") else seconds * factor

    return Estimate(rate, *ends, f"Student's t over {_clusters(blocks, processes)}", seconds=more, hint=_LONGER)
