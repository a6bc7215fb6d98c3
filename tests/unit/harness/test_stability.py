"""Changes of the machine during a run, from states that differ in one field each."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from emca_deploy.harness.measure import stability
from emca_deploy.harness.measure.stability import FOREIGN_LIMIT, clock_warnings, contention_warnings, drift_warnings
from emca_deploy.machines.machine_state import CpuTimes, MachineState, QuotaThrottling, read_machine_state

BEFORE = MachineState(
    time_ns=0,
    cpu_times=CpuTimes(100.0, 1.0, 400.0),
    context_switches=1000,
    frequency_mhz=3000.0,
    governors=("performance",),
    thermal_throttles=5,
    cooling_steps=0,
    temperature_c=50.0,
    quota=QuotaThrottling(1000, 10, 1.0),
    memory_stall_s=3.0,
    io_stall_s=1.0,
    cpu_stall_s=1.0,
    swapped_mib=10.0,
    memory_available_mib=8000.0,
    load_average=(1.0, 1.0, 1.0),
)
CALM = replace(BEFORE, time_ns=10_000_000_000, cpu_times=CpuTimes(120.0, 1.0, 440.0))


def changes_between(before, after, own_cpu_s=20.0):
    return stability.changes_between(before, after, own_cpu_s)


DISTURBANCES = {
    "steal": ({"cpu_times": CpuTimes(120.0, 5.0, 440.0)}, "10%", "dedicated or idle host"),
    "heat": ({"thermal_throttles": 8}, "3 times", "cool it"),
    "cooling": ({"cooling_steps": 2}, "hold the processor or GPU back", "lower power mode"),
    "clock": ({"frequency_mhz": 2400.0}, "fell by 20%", "'performance'"),
    "quota": ({"quota": QuotaThrottling(1100, 40, 1.8)}, "30 of 100 periods", "--cpus"),
    "memory": ({"memory_stall_s": 3.5}, "5% of the time", "free memory"),
    "swap": ({"swapped_mib": 74.0}, "64 MiB", "swapoff"),
}


def test_nothing_happened():
    assert changes_between(BEFORE, CALM) == []


@pytest.mark.parametrize("what", DISTURBANCES)
def test_disturbance_is_said_with_its_size_and_the_remedy(what):
    change, size, remedy = DISTURBANCES[what]
    (warning,) = changes_between(BEFORE, replace(CALM, **change))
    problem, _, advice = warning.partition(": ")
    assert size in problem
    assert remedy in advice


@pytest.mark.parametrize("what", DISTURBANCES)
def test_what_is_unknown_on_one_side_is_no_disturbance(what):
    change, _, _ = DISTURBANCES[what]
    unknown = dict.fromkeys(change)
    assert changes_between(replace(BEFORE, **unknown), replace(CALM, **change)) == []
    assert changes_between(BEFORE, replace(CALM, **unknown)) == []


def test_all_at_once():
    everything = {name: value for change, _, _ in DISTURBANCES.values() for name, value in change.items()}
    assert len(changes_between(BEFORE, replace(CALM, **everything))) == len(DISTURBANCES)


def test_small_changes_are_no_disturbance():
    small = {
        "frequency_mhz": 2800.0,
        "memory_stall_s": 3.05,
        "swapped_mib": 10.5,
        "quota": QuotaThrottling(1100, 11, 1.005),
        "cpu_times": CpuTimes(120.0, 1.5, 440.0),
    }
    assert changes_between(BEFORE, replace(CALM, **small)) == []


LIMITS = {
    "steal": ({"cpu_times": CpuTimes(120.0, 1.79, 440.0)}, {"cpu_times": CpuTimes(120.0, 1.81, 440.0)}),
    "others": ({"cpu_times": CpuTimes(123.9, 1.0, 440.0)}, {"cpu_times": CpuTimes(124.1, 1.0, 440.0)}),
    "heat": ({"thermal_throttles": 5}, {"thermal_throttles": 6}),
    "cooling": ({"cooling_steps": 0}, {"cooling_steps": 1}),
    "clock": ({"frequency_mhz": 2701.0}, {"frequency_mhz": 2699.0}),
    "quota": ({"quota": QuotaThrottling(1100, 11, 1.0099)}, {"quota": QuotaThrottling(1100, 11, 1.0101)}),
    "memory": ({"memory_stall_s": 3.099}, {"memory_stall_s": 3.101}),
    "swap": ({"swapped_mib": 10.9}, {"swapped_mib": 11.1}),
}


@pytest.mark.parametrize("what", LIMITS)
def test_limits(what):
    below, above = (changes_between(BEFORE, replace(CALM, **change)) for change in LIMITS[what])
    assert (below, len(above)) == ([], 1)


def test_a_clock_that_is_fixed_by_another_governor_and_one_that_stood_still():
    fixed = replace(CALM, frequency_mhz=2400.0, governors=("userspace",))
    assert len(changes_between(BEFORE, fixed)) == 1
    assert changes_between(replace(BEFORE, governors=("schedutil",)), fixed) == []
    assert clock_warnings(range(6), [0.0] * 6) == []


@pytest.mark.parametrize(("count", "warned"), [(5, 0), (6, 1)])
def test_a_trend_needs_six_values(count, warned):
    falling = [3000.0] * (count // 2) + [2000.0] * (count - count // 2)
    assert len(clock_warnings(range(count), falling)) == warned
    assert len(drift_warnings([np.full(3, value) for value in falling])) == warned


@pytest.mark.parametrize(("last", "warned"), [(1.09, 0), (1.11, 1), (0.91, 0), (0.89, 1)])
def test_drift_is_that_of_the_last_third_against_the_first(last, warned):
    assert len(drift_warnings([np.full(3, value) for value in (1, 1, 5, 5, last, last)])) == warned


def test_clock_that_the_governor_moves_is_not_judged_at_rest():
    for governors in ((), ("schedutil",), ("performance", "schedutil")):
        states = (replace(state, governors=governors) for state in (BEFORE, replace(CALM, frequency_mhz=800.0)))
        assert changes_between(*states) == []


def test_other_processes_are_told_from_ours():
    busy = replace(CALM, cpu_times=CpuTimes(130.0, 5.0, 440.0))
    steal, foreign = changes_between(BEFORE, busy, own_cpu_s=20.0)
    assert "steal" in steal
    assert "25%" in foreign
    assert [steal, foreign] == contention_warnings(BEFORE.cpu_times, busy.cpu_times, 20.0)
    assert changes_between(BEFORE, busy, own_cpu_s=30.0) == [steal]


def test_no_time_has_passed():
    assert changes_between(BEFORE, replace(BEFORE, thermal_throttles=99)) == []


def test_clock_during_the_run():
    times = list(range(12))
    assert clock_warnings(times, [3000.0] * 12) == []
    assert clock_warnings(times, [3000.0] * 6 + [2500.0] * 6)[0].startswith("the processor's clock fell by 17% while it ran")
    assert clock_warnings(times[::-1], [3000.0] * 6 + [2500.0] * 6) == []  # it rose
    assert clock_warnings(times[:3], [3000.0, 1.0, 1.0]) == []
    assert clock_warnings([], []) == []


def test_this_machine_under_another_load_is_noticed():
    before = read_machine_state()
    if before.cpu_times is None or before.cpu_times.total_s == 0:
        pytest.skip("no processor times in /proc/stat")
    code = "import time; end = time.process_time() + 0.7\nwhile time.process_time() < end: pass"
    count = len(os.sched_getaffinity(0))
    for child in [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]:
        child.wait()
    after = read_machine_state()
    if 0.6 * count <= FOREIGN_LIMIT * after.cpu_times.since(before.cpu_times).total_s:
        pytest.skip("this process may use too few cores to load the machine")
    assert any("other processes used" in warning for warning in changes_between(before, after, own_cpu_s=0.0))
