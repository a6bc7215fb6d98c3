"""The slowdown of a candidate against a baseline that was measured in the same run or in another one."""

import numpy as np

from emca_deploy.errors import InputError
from emca_deploy.harness.measure.comparing import Measured, differences
from emca_deploy.requirements.documents import MeasuredCandidate
from emca_deploy.requirements.estimates import Estimate, Spread, processes_of
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.requirements import CONFIDENCE
from emca_deploy.stats.between_runs import PAIR_SPREAD
from emca_deploy.stats.confidence import FEWEST_PROCESSES, Ends, cluster_of_blocks, rescaled, widened
from emca_deploy.stats.estimates import ratio_of_medians

__all__ = ["against_another_run", "in_one_run", "percent"]

_CONFIRM = "measure both together: gate --confirm"
_LONGER = f"measure longer, profile --duration, or {_CONFIRM}"
_MORE_PROCESSES = f"measure in more processes, profile --processes 8, or {_CONFIRM}"
_NO_BOUND = 1000.0
"""Ratio that is no bound."""


def percent(ratio: float) -> float:
    """Return a ratio of latencies as a slowdown in percent."""
    return 100 * (ratio - 1)


def _ends(low: float, high: float) -> Ends:
    return None if low < 1 / _NO_BOUND else percent(low), None if high > _NO_BOUND else percent(high)


def in_one_run(candidate: MeasuredCandidate, baseline: MeasuredCandidate) -> Estimate:
    """Return the slowdown against a candidate whose blocks alternated with those of this one.

    Raises:
        InputError: one of them has no samples.
    """
    ours, theirs = _sides(candidate, baseline)
    ratio, limits, degrees = _ratio(ours, theirs, paired=True)
    low, high = rescaled(ratio, limits, degrees, CONFIDENCE)
    method = f"bootstrap of interleaved blocks, {degrees} degrees of freedom"
    if (pairs := len(set(processes_of(ours[0]) or (0,)))) < FEWEST_PROCESSES:  # too few to show how much they differ
        low, high = widened(ratio, (low, high), PAIR_SPREAD / pairs**0.5, 0, CONFIDENCE)
        method += f", and a spread of {100 * PAIR_SPREAD:g} % between pairs of processes, of which there are {pairs}"
    value = percent(ratio)
    seconds = sum(float(block.sum()) for block in ours[1].blocks(0)) / 1000

    def more(limit: float) -> float | None:
        distance = limit - value
        half = percent(high) - value if distance > 0 else value - percent(low)
        return seconds * (half / distance) ** 2 if distance and pairs >= FEWEST_PROCESSES else None

    return Estimate(
        value,
        *_ends(low, high),
        method,
        seconds=more,
        hint=_LONGER if pairs >= FEWEST_PROCESSES else _MORE_PROCESSES,
        baseline=baseline.name,
    )


def against_another_run(candidate: MeasuredCandidate, baseline: MeasuredCandidate, spread: Spread) -> Estimate:
    """Return the slowdown against a candidate of another run, with the spread between runs in its interval.

    Raises:
        InputError: the runs have different machines or protocols, or one has no samples.
    """
    ours, theirs = _sides(candidate, baseline)
    if found := differences(ours[1].report, theirs[1].report):
        remedy = "measure both on the same machine with the same options, or both together: gate --confirm"
        raise InputError(f"{ours[1].place} and {theirs[1].place} cannot be compared: {'; '.join(found)}", remedy)
    ratio, limits, degrees = _ratio(ours, theirs, paired=False)
    limits = rescaled(ratio, limits, degrees, CONFIDENCE)
    low, high = widened(ratio, limits, spread.deviation * 2**0.5, spread.degrees, CONFIDENCE)
    method = f"bootstrap of blocks of two runs, and their spread: {spread.source}"
    name = f"{baseline.name} in {theirs[1].place}"
    return Estimate(percent(ratio), *_ends(low, high), method, hint=_CONFIRM, baseline=name)


_Side = tuple[LatencyResult, Measured]


def _sides(candidate: MeasuredCandidate, baseline: MeasuredCandidate) -> tuple[_Side, _Side]:
    sides = []
    for each in (candidate, baseline):
        if each.latency is None or each.run is None:
            raise InputError(f"{each.name}: has no latency to compare", "measure it: profile ARTIFACT -o result.json")
        sides.append((each.latency, each.run))
    return sides[0], sides[1]


def _ratio(ours: _Side, theirs: _Side, *, paired: bool) -> tuple[float, tuple[float, float], int]:
    """Return the ratio of our median to theirs, its 95 % interval, and the degrees of freedom of the interval."""
    blocks = [side[1].blocks(0) for side in (ours, theirs)]
    processes = [processes_of(side[0]) for side in (ours, theirs)]
    if paired:
        rounds = min(map(len, blocks))
        blocks = [each[:rounds] for each in blocks]
        processes = [None if each is None else each[:rounds] for each in processes]
    for side, blocks_of in zip((ours, theirs), blocks, strict=True):
        if min((float(np.median(block)) for block in blocks_of if len(block)), default=0.0) <= 0:
            raise InputError(f"{side[1].place}: has blocks that took no time", "measure again: profile")
    few = any(len(set(each or (0,))) < FEWEST_PROCESSES for each in processes)
    both = (None, None) if few else (processes[0], processes[1])
    ratio, limits = ratio_of_medians(blocks[0], blocks[1], paired=paired, processes=both)
    clusters = min(max(cluster_of_blocks(*each)) + 1 for each in zip(blocks, processes, strict=True))
    return ratio, limits, max(1, clusters - 1)
