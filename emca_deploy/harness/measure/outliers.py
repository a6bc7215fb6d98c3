"""The slowest calls of a candidate, with what the machine did meanwhile."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emca_deploy.harness.measure.candidate import Candidate
from emca_deploy.results.load import Outlier
from emca_deploy.telemetry.recorder import Sample

__all__ = ["outliers_of"]

MOST = 5
_SLOW = 1.5
"""A call this many times as long as the median is slow enough to ask why."""

_UNUSUAL = 2.0
"""A count above this many times the mean of the faster half of the calls is evidence."""

_FAULT_MS = 0.001
"""About the time that a page fault costs."""

_FAULT_SHARE = 0.1
"""Share of the lost time that page faults must cost to be evidence."""

_SHARE = 0.5
"""Share of the lost time that the hypervisor must have taken, in the call's block, to be evidence."""

_FALLEN = 0.95
"""A clock below this share of its median is evidence."""

_NEAR_NS = 500_000_000
"""Readings of clocks and temperatures this close to a call belong to it."""


def outliers_of(candidate: Candidate, samples: Sequence[Sample]) -> tuple[Outlier, ...]:
    """Return the slowest calls that were made back to back, the slowest first; none where the system does not count.

    `samples` are those of the telemetry, from which clocks and temperatures come.
    """
    blocks = [block for block in candidate.blocks if block.usage is not None and len(block.usage) == len(block.calls_ms)]
    if not blocks:
        return ()
    calls_ms = np.concatenate([block.calls_ms for block in blocks])
    usage = np.concatenate([block.usage for block in blocks if block.usage is not None])
    of_block = np.repeat(np.arange(len(blocks)), [len(block.calls_ms) for block in blocks])
    # The time between calls is short, so the calls before it give the start of each.
    ends_ns = np.concatenate([block.window_ns[1] - (block.calls_ms.sum() - block.calls_ms.cumsum()) * 1e6 for block in blocks])
    typical_ms = float(np.median(calls_ms))
    usual = _UNUSUAL * usage[calls_ms <= typical_ms].mean(axis=0)
    clocks, heat = _readings(samples, "cpu_frequency", "mean_mhz"), _readings(samples, "temperature", "")
    found = []
    for index in np.argsort(-calls_ms, kind="stable")[:MOST].tolist():
        block, latency_ms = blocks[of_block[index]], float(calls_ms[index])
        clock = _near(clocks, float(ends_ns[index]))
        one = Outlier(
            latency_ms=latency_ms,
            at_s=round((float(ends_ns[index]) - candidate.blocks[0].window_ns[0]) / 1e9 - latency_ms / 1000, 4),
            involuntary_switches=int(usage[index][0]),
            page_faults=int(usage[index][1] + usage[index][2]),
            disk_faults=int(usage[index][2]),
            steal_ms=block.steal_ms,
            clock_mhz=clock,
            temperature_c=_near(heat, float(ends_ns[index])),
            evidence="",
        )
        fallen = clock is not None and clock < _FALLEN * float(np.median([value for _, value in clocks]))
        reasons = _reasons(one, usual.tolist(), typical_ms, fallen=fallen) if latency_ms > _SLOW * typical_ms else []
        found.append(replace(one, evidence="; ".join(reasons)))
    return tuple(found)


def _reasons(one: Outlier, usual: Sequence[float], typical_ms: float, *, fallen: bool) -> list[str]:
    """Return what could explain a slow call: counts that are unusual, time that was stolen, a clock that fell."""
    reasons, lost_ms = [], one.latency_ms - typical_ms
    if one.disk_faults > usual[2]:
        reasons.append(f"{one.disk_faults} page faults read from disk")
    elif one.page_faults > max(usual[1], _FAULT_SHARE * lost_ms / _FAULT_MS):
        reasons.append(f"{one.page_faults} page faults")
    if one.involuntary_switches > usual[0]:
        times = one.involuntary_switches
        reasons.append(f"other threads took its cores {f'{times} times' if times > 1 else 'once'}")
    if one.steal_ms is not None and one.steal_ms > _SHARE * lost_ms:
        reasons.append(f"the hypervisor took {one.steal_ms:.0f} ms in its block")
    if fallen:
        reasons.append(f"the clock fell to {one.clock_mhz:,.0f} MHz")
    return reasons


def _readings(samples: Sequence[Sample], source: str, name: str) -> list[tuple[int, float]]:
    """Return the times and values of a reading; without a name, the highest of each sample."""
    own = [sample for sample in samples if sample.source == source]
    values = [(sample.time_ns, sample.values.get(name) if name else max(sample.values.values(), default=None)) for sample in own]
    return [(time_ns, value) for time_ns, value in values if value is not None]


def _near(readings: Sequence[tuple[int, float]], time_ns: float) -> float | None:
    """Return the reading that is nearest to a time, or None where none is near."""
    nearest = min(readings, key=lambda each: abs(each[0] - time_ns), default=None)
    return nearest[1] if nearest is not None and abs(nearest[0] - time_ns) <= _NEAR_NS else None
