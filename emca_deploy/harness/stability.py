"""Whether a measurement can be trusted: what else the machine did meanwhile, and whether a candidate drifted."""

from collections.abc import Sequence

import numpy as np

from emca_deploy.harness.environment import CpuTimes
from emca_deploy.harness.stats import Float64Array

__all__ = ["contention_warnings", "drift_warnings"]

STEAL_LIMIT = 0.02
FOREIGN_LIMIT = 0.10
DRIFT_LIMIT = 0.10
_FEWEST_BLOCKS = 6


def contention_warnings(before: CpuTimes | None, after: CpuTimes | None, own_cpu_s: float) -> list[str]:
    """Return warnings about processor time that others took while measuring.

    Args:
        before: counters at the beginning; None where the system has none.
        after: at the end.
        own_cpu_s: processor seconds of the coordinator and all its workers in between.
    """
    if before is None or after is None:
        return []
    passed = after.since(before)
    if passed.total_s <= 0:
        return []
    warnings = []
    steal = passed.steal_s / passed.total_s
    if steal > STEAL_LIMIT:
        warnings.append(
            f"the hypervisor gave {steal:.0%} of the processor time to other machines (steal): "
            "measure on a dedicated or idle host, or trust only the ratios"
        )
    foreign = (passed.busy_s - own_cpu_s) / passed.total_s
    if foreign > FOREIGN_LIMIT:
        warnings.append(f"other processes used {foreign:.0%} of the processors meanwhile: stop them and measure again")
    return warnings


def drift_warnings(blocks: Sequence[Float64Array]) -> list[str]:
    """Return a warning if a candidate's latency at the end is not what it was at the beginning.

    Args:
        blocks: the measurements of each block, in the order of time.
    """
    medians = np.array([np.median(block) for block in blocks if len(block)])
    if len(medians) < _FEWEST_BLOCKS:
        return []
    third = len(medians) // 3
    drift = float(np.median(medians[-third:]) / np.median(medians[:third]) - 1)
    if abs(drift) <= DRIFT_LIMIT:
        return []
    return [
        f"latency drifted by {drift:+.0%} from the first to the last third: let the machine cool down or settle, fix its clock "
        "(governor 'performance'), or measure longer with --duration"
    ]
