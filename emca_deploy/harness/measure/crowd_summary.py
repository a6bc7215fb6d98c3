"""Results of several calls at once, and of two candidates at once."""

from collections.abc import Sequence

import numpy as np

from emca_deploy.harness.measure.candidate import Block, Candidate
from emca_deploy.harness.measure.protocol import TOGETHER, Protocol, Turn
from emca_deploy.harness.measure.summary import summarize
from emca_deploy.results.latency import CoRun, CrowdLatency
from emca_deploy.stats.estimates import median_ci, ratio_of_medians

__all__ = ["co_run_result", "crowd_results", "knee_of"]

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
    both, alone = [block.calls_ms for block in blocks], candidate.calls_ms
    of = (_processes(blocks), candidate.block_processes)
    ratio, interval = ratio_of_medians(both, alone, protocol.seed, paired=len(both) == len(alone), processes=of)
    return CoRun(other.processes[0].artifact, summarize(both, protocol.seed, of[0]), ratio, interval)


def _processes(blocks: Sequence[Block]) -> list[int] | None:
    of = [block.process for block in blocks]
    return of if len(set(of)) > 1 else None
