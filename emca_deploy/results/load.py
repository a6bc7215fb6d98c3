"""Latencies of `profile`: their summary, and records by how the calls come. Units are in the names."""

from dataclasses import dataclass

from emca_deploy.results.codec import left_out
from emca_deploy.results.telemetry import Power, ValueSummary

__all__ = [
    "STAGES",
    "CoRun",
    "CrowdLatency",
    "EndToEnd",
    "HighestRate",
    "LatencySummary",
    "Misses",
    "Outlier",
    "PacedLatency",
    "RealImages",
]


STAGES = ("decode", "resize", "normalize", "copy", "infer", "post-process")
"""From an image file in memory to the answer. "copy" is into the model's layout and type; "infer" includes the
runtime's copies."""


@dataclass(frozen=True)
class LatencySummary:
    """Milliseconds per call (a call is one batch). Percentiles are order statistics: measured values, never interpolated.

    Attributes:
        p50_ci95: 95 % interval of the median.
        p90_upper95, p95_upper95, p99_upper95, p99_9_upper95: Upper bounds of the percentiles with 95 % confidence, for
            independent calls; null where there are too few calls.
    """

    min: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    std: float
    p50_ci95: tuple[float, float]
    p90_upper95: float | None = None
    p95_upper95: float | None = None
    p99_upper95: float | None = None
    p99_9_upper95: float | None = None


@dataclass(frozen=True)
class Misses:
    """How many frames were not answered within the deadline.

    Attributes:
        share: Share of the frames, 0 to 1.
        share_ci95: Its 95 % interval; frames that are close in time count as similar.
    """

    deadline_ms: float
    frames: int
    share: float
    share_ci95: tuple[float, float]


@dataclass(frozen=True)
class PacedLatency:
    """A candidate's latency where frames come at a rate. A late frame waits until the runner is free; none is skipped.

    Attributes:
        rate_per_s: Frames per second.
        frames: Number of frames.
        latency_ms: Time from when a frame comes to its answer.
        service_ms: Time of the call alone.
        overruns: Number of frames that were answered after the next one had come.
        busy_share: Share of the time that the runner works at this rate; from 1 the queue grows without end.
        idle_to_busy: Median time of a call at this rate, divided by that of calls made back to back.
        idle_to_busy_ci95: Its 95 % interval.
        late_starts: Number of frames that started over 0.5 ms late although the runner was free, or that queued behind those.
        valid: False where these are more than 1 % of the frames.
        clock_mhz: Clock of the processor, or of the GPU, in the meantime.
        power: Total power by meter, and energy per image.
        misses: Frames that missed the deadline; None without a deadline.
    """

    rate_per_s: float
    frames: int
    latency_ms: LatencySummary
    service_ms: LatencySummary
    overruns: int
    busy_share: float
    idle_to_busy: float
    idle_to_busy_ci95: tuple[float, float]
    late_starts: int
    valid: bool
    clock_mhz: ValueSummary | None = left_out()
    power: dict[str, Power] = left_out(dict)
    misses: Misses | None = left_out()


@dataclass(frozen=True)
class HighestRate:
    """The highest rate at which 99.9 % of the frames meet the deadline.

    Attributes:
        rate_per_s: Frames per second; None where no rate that was tried meets the deadline.
        shown: Whether the upper bound of p99.9 meets the deadline; else the frames are too few, and at most 0.1 % missed it.
        tried_per_s: Rates that were tried, in order.
    """

    rate_per_s: float | None
    shown: bool
    tried_per_s: tuple[float, ...]


@dataclass(frozen=True)
class CrowdLatency:
    """A candidate's latency where several threads of one process call at once, each a loaded model of its own.

    Attributes:
        callers: Number of threads.
        throughput_images_per_s: Images per second of all threads together, the median of the blocks.
        throughput_ci95: Its 95 % interval.
    """

    callers: int
    calls: int
    latency_ms: LatencySummary
    throughput_images_per_s: float
    throughput_ci95: tuple[float, float]


@dataclass(frozen=True)
class CoRun:
    """A candidate's latency while another one runs too.

    Attributes:
        other: Artifact of the other candidate.
        latency_ms: Time of a call while both run.
        slowdown: Median time of a call while both run, divided by that of a call alone.
        slowdown_ci95: Its 95 % interval.
    """

    other: str
    latency_ms: LatencySummary
    slowdown: float
    slowdown_ci95: tuple[float, float]


@dataclass(frozen=True)
class Outlier:
    """One of the slowest calls, with what the machine did meanwhile.

    Attributes:
        at_s: Its start, in seconds since the candidate's first block.
        involuntary_switches: How often a thread of its process lost its core to another thread.
        page_faults: Page faults of its process.
        disk_faults: Those of them that read from disk.
        steal_ms: Time of all cores that the hypervisor gave to other machines during its block; null where that is not known.
        clock_mhz: Mean clock of the cores near it.
        temperature_c: Highest temperature near it.
        evidence: What could explain it, or "" where nothing unusual was seen or the call was not slow.
    """

    latency_ms: float
    at_s: float
    involuntary_switches: int
    page_faults: int
    disk_faults: int
    steal_ms: float | None
    clock_mhz: float | None
    temperature_c: float | None
    evidence: str


@dataclass(frozen=True)
class RealImages:
    """A candidate's latency on real images, which other values have on random input.

    Attributes:
        images: Number of different images.
        latency_ms: Time of a call, without reading the images.
        ratio: Median time of a call on real images, divided by that on random input.
        ratio_ci95: Its 95 % interval.
    """

    images: int
    latency_ms: LatencySummary
    ratio: float
    ratio_ci95: tuple[float, float]


@dataclass(frozen=True)
class EndToEnd:
    """A candidate's time from an image file in memory to the answer, one image after the other on one thread.

    Attributes:
        images: Number of images.
        latency_ms: Time of all stages together.
        stages_mean_ms: Mean time of each stage, in order; they add up to the mean of `latency_ms`.
    """

    images: int
    latency_ms: LatencySummary
    stages_mean_ms: dict[str, float]
