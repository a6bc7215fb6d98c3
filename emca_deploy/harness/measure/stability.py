"""Reasons to doubt a measurement: what else the machine did during it, and drift of a candidate's latency."""

from collections.abc import Sequence

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.machines.machine_state import CpuTimes, MachineState

__all__ = ["changes_between", "clock_warnings", "contention_warnings", "drift_warnings"]

STEAL_LIMIT = 0.02
FOREIGN_LIMIT = 0.10
DRIFT_LIMIT = 0.10
CLOCK_LIMIT = 0.10
THROTTLED_LIMIT = 0.001
STALL_LIMIT = 0.01
SWAP_LIMIT_MIB = 1.0
_FEWEST_BLOCKS = 6
_FEWEST_CLOCKS = 6
_FIXED_GOVERNORS = frozenset({"performance", "userspace"})


def changes_between(before: MachineState, after: MachineState, own_cpu_s: float) -> list[str]:
    """Return warnings about changes of the machine during a measurement, each with a remedy.

    `own_cpu_s` is the processor time of the coordinator and all its workers in between.
    """
    seconds = (after.time_ns - before.time_ns) / 1e9
    if seconds <= 0:
        return []
    return [
        *contention_warnings(before.cpu_times, after.cpu_times, own_cpu_s),
        *_throttling_warnings(before, after),
        *_quota_warnings(before, after, seconds),
        *_memory_warnings(before, after, seconds),
    ]


def clock_warnings(times_ns: Sequence[int], clocks_mhz: Sequence[float]) -> list[str]:
    """Return a warning if the fastest core's clock, sampled within the candidate's blocks, fell while the candidate ran."""
    if len(clocks_mhz) < _FEWEST_CLOCKS:
        return []
    ordered = np.array([mhz for _, mhz in sorted(zip(times_ns, clocks_mhz, strict=True))])
    first, last = _outer_thirds(ordered)
    return _fallen_clock(first, last, "while it ran")


def contention_warnings(before: CpuTimes | None, after: CpuTimes | None, own_cpu_s: float) -> list[str]:
    """Return warnings about processor time that other machines and other processes took during a measurement."""
    if before is None or after is None:
        return []
    passed = after.since(before)
    if passed.total_s <= 0:
        return []
    warnings = []
    steal, foreign = passed.steal_s / passed.total_s, (passed.busy_s - own_cpu_s) / passed.total_s
    if steal > STEAL_LIMIT:
        warnings.append(
            f"the hypervisor gave {steal:.0%} of the processor time to other machines (steal): "
            "measure on a dedicated or idle host, or trust only the ratios"
        )
    if foreign > FOREIGN_LIMIT:
        warnings.append(f"other processes used {foreign:.0%} of the processors during the run: stop them and measure again")
    return warnings


def drift_warnings(blocks: Sequence[Float64Array]) -> list[str]:
    """Return a warning if a candidate's latency in its last third of blocks differs from that in its first."""
    medians = np.array([np.median(block) for block in blocks if len(block)])
    if len(medians) < _FEWEST_BLOCKS:
        return []
    first, last = _outer_thirds(medians)
    drift = last / first - 1
    if abs(drift) <= DRIFT_LIMIT:
        return []
    return [
        f"latency drifted by {drift:+.0%} from the first to the last third: let the machine cool down or settle, fix its clock "
        "(governor 'performance'), or measure longer with --duration"
    ]


def _outer_thirds(values: Float64Array) -> tuple[float, float]:
    """Return the medians of the first and the last third."""
    third = len(values) // 3
    return float(np.median(values[:third])), float(np.median(values[-third:]))


def _throttling_warnings(before: MachineState, after: MachineState) -> list[str]:
    warnings = []
    events = _growth(before.thermal_throttles, after.thermal_throttles)
    if events > 0:
        warnings.append(
            f"the processor lowered its clock for heat or power {events:.0f} times: cool it, pause between runs, or "
            "cap its clock below the limit (cpupower frequency-set -u)"
        )
    if _growth(before.cooling_steps, after.cooling_steps) > 0:
        warnings.append(
            "the kernel began to hold the processor or GPU back because of heat: cool the machine, or choose a lower power mode"
        )
    # A clock that the governor changes is low at rest: only a fixed clock means anything outside the blocks.
    fixed = bool(after.governors) and _FIXED_GOVERNORS.issuperset((*before.governors, *after.governors))
    if fixed and before.frequency_mhz and after.frequency_mhz:
        warnings += _fallen_clock(before.frequency_mhz, after.frequency_mhz, "from before the run to after it")
    return warnings


def _fallen_clock(first_mhz: float, last_mhz: float, when: str) -> list[str]:
    fall = 1 - last_mhz / first_mhz if first_mhz > 0 else 0.0
    if fall <= CLOCK_LIMIT:
        return []
    return [
        f"the processor's clock fell by {fall:.0%} {when} ({first_mhz:.0f} to {last_mhz:.0f} MHz): let the machine cool down, "
        "and fix its clock (governor 'performance')"
    ]


def _quota_warnings(before: MachineState, after: MachineState, seconds: float) -> list[str]:
    if before.quota is None or after.quota is None:
        return []
    paused_s = after.quota.throttled_s - before.quota.throttled_s
    paused = after.quota.throttled_periods - before.quota.throttled_periods
    periods = after.quota.periods - before.quota.periods
    if paused <= 0 or paused_s <= THROTTLED_LIMIT * seconds:
        return []
    return [
        f"the container's processor quota paused its processes in {paused} of {periods} periods: raise the quota "
        "(docker --cpus, Kubernetes limits.cpu), or use no more threads than it has cores"
    ]


def _memory_warnings(before: MachineState, after: MachineState, seconds: float) -> list[str]:
    warnings = []
    stalled = _growth(before.memory_stall_s, after.memory_stall_s) / seconds
    if stalled > STALL_LIMIT:
        warnings.append(
            f"tasks waited for memory {stalled:.0%} of the time: free memory, raise the container's limit, or measure fewer "
            "candidates at once"
        )
    swapped_mib = _growth(before.swapped_mib, after.swapped_mib)
    if swapped_mib > SWAP_LIMIT_MIB:
        warnings.append(f"the machine swapped {swapped_mib:.0f} MiB: free memory, or turn swap off while measuring (swapoff -a)")
    return warnings


def _growth(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else after - before
