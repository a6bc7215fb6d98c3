"""Results of several calls at once, of two candidates at once, and of calls on real images."""

from collections.abc import Sequence

import numpy as np

from emca_deploy.harness.measure.candidate import Block, Candidate
from emca_deploy.harness.measure.protocol import CHAIN, REAL, TOGETHER, Protocol, Turn
from emca_deploy.harness.measure.summary import summarize
from emca_deploy.results.load import STAGES, CoRun, CrowdLatency, EndToEnd, LatencySummary, RealImages
from emca_deploy.stats.estimates import median_ci, ratio_of_medians

__all__ = ["co_run_result", "crowd_results", "end_to_end_result", "knee_of", "real_images_result"]

KNEE_SHARE = 0.95
"""Share of the highest throughput from which more calls at once are not worth their latency."""


def crowd_results(candidate: Candidate, protocol: Protocol) -> tuple[CrowdLatency, ...]:
    """Return a candidate's result at each number of calls at once, in ascending order."""
    found = ((callers, candidate.others.get(Turn("callers", callers), [])) for callers in sorted(protocol.concurrency))
    images = candidate.batch(protocol.batch)
    return tuple(_crowd_result(callers, blocks, images, protocol.seed) for callers, blocks in found if blocks)


def _crowd_result(callers: int, blocks: Sequence[Block], images: int, seed: int) -> CrowdLatency:
    calls_ms = [block.calls_ms for block in blocks]
    rates = [np.array([images * block.calls_per_s]) for block in blocks]
    return CrowdLatency(
        callers=callers,
        calls=sum(map(len, calls_ms)),
        latency_ms=summarize(calls_ms, seed, _processes(blocks)),
        throughput_images_per_s=float(np.median(np.concatenate(rates))),
        throughput_ci95=median_ci(rates, seed, _processes(blocks)),
    )


def knee_of(crowds: Sequence[CrowdLatency]) -> int | None:
    """Return the smallest number of calls at once with 95 % of the highest throughput; None without results."""
    highest = max((crowd.throughput_images_per_s for crowd in crowds), default=0.0)
    return next((crowd.callers for crowd in crowds if crowd.throughput_images_per_s >= KNEE_SHARE * highest), None)


def co_run_result(candidate: Candidate, candidates: Sequence[Candidate], protocol: Protocol) -> CoRun | None:
    """Return a candidate's result while the other one runs too; None where they did not run at once."""
    blocks = candidate.others.get(TOGETHER, [])
    other = next((each for each in candidates if each is not candidate), None)
    if not blocks or other is None:
        return None
    summary, ratio, interval = _beside_alone(candidate, blocks, protocol)
    return CoRun(other.processes[0].artifact, summary, ratio, interval)


def real_images_result(candidate: Candidate, protocol: Protocol) -> RealImages | None:
    """Return a candidate's result on real images; None where there were none."""
    blocks = candidate.others.get(REAL, [])
    return RealImages(candidate.real_images, *_beside_alone(candidate, blocks, protocol)) if blocks else None


def end_to_end_result(candidate: Candidate, protocol: Protocol) -> EndToEnd | None:
    """Return a candidate's result from image files to answers; None where that was not measured."""
    blocks = candidate.others.get(CHAIN, [])
    stages_ms = [block.stages_ms for block in blocks if block.stages_ms is not None]
    if not stages_ms:
        return None
    means = np.concatenate(stages_ms).mean(axis=0)
    summary = summarize([block.calls_ms for block in blocks], protocol.seed, _processes(blocks))
    return EndToEnd(sum(map(len, stages_ms)), summary, dict(zip(STAGES, means.tolist(), strict=True)))


def _beside_alone(
    candidate: Candidate, blocks: Sequence[Block], protocol: Protocol
) -> tuple[LatencySummary, float, tuple[float, float]]:
    """Return the summary of some blocks, and the ratio of their median to that of calls alone on random input."""
    calls_ms, alone_ms = [block.calls_ms for block in blocks], candidate.calls_ms
    of = (_processes(blocks), candidate.block_processes)
    ratio, interval = ratio_of_medians(calls_ms, alone_ms, protocol.seed, paired=len(calls_ms) == len(alone_ms), processes=of)
    return summarize(calls_ms, protocol.seed, of[0]), ratio, interval


def _processes(blocks: Sequence[Block]) -> list[int] | None:
    of = [block.process for block in blocks]
    return of if len(set(of)) > 1 else None
