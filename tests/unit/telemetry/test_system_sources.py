"""Clocks, temperatures and processes, on recorded trees and on this machine."""

import os
import subprocess
import sys
import threading

import pytest

from emca_deploy.errors import MissingError
from emca_deploy.telemetry.process_memory import (
    ContextSwitches,
    ProcessMemorySource,
    read_context_switches,
    read_pss_mib,
)
from emca_deploy.telemetry.processor import CpuFrequencySource, read_frequencies_mhz, usable_cores
from emca_deploy.telemetry.thermal import ThermalSource, read_temperatures_c


def write(root, path, text):
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{text}\n")
    return place


def test_clock_of_each_core(tmp_path):
    for core, khz in enumerate((2_400_000, 3_100_500, "<unknown>")):
        write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", khz)
    assert read_frequencies_mhz(tmp_path, frozenset({0, 1, 2, 9})) == {0: 2400, 1: 3100.5}
    with CpuFrequencySource(tmp_path, frozenset({0, 1})) as source:
        assert source.read() == {"core_0_mhz": 2400, "core_1_mhz": 3100.5, "mean_mhz": 2750.25}


def test_clock_from_cpuinfo_where_the_driver_tells_none(tmp_path):
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2596.144\n\nprocessor\t: 1\ncpu MHz\t\t: 1200.0\n")
    assert read_frequencies_mhz(tmp_path, frozenset({1})) == {1: 1200}


def test_no_clock_at_all(tmp_path):
    assert not CpuFrequencySource.is_available(tmp_path)
    assert CpuFrequencySource(tmp_path).read() == {}


def test_usable_cores_are_this_process_affinity():
    assert len(usable_cores()) == len(os.sched_getaffinity(0))


def test_temperatures_of_zones_and_of_the_processor(tmp_path):
    zones = [("x86_pkg_temp", 54000), ("acpitz", 27800), ("acpitz", 29800), ("CV0-therm", -256000), ("broken", "")]
    for index, (kind, value) in enumerate(zones):
        write(tmp_path, f"sys/class/thermal/thermal_zone{index}/type", kind)
        write(tmp_path, f"sys/class/thermal/thermal_zone{index}/temp", value)
    write(tmp_path, "sys/class/thermal/thermal_zone9/type", "gated")  # reading temp fails
    for chip, name, label in ((0, "nvme", "Composite"), (1, "k10temp", "Tctl"), (2, "coretemp", "Package id 0")):
        write(tmp_path, f"sys/class/hwmon/hwmon{chip}/name", name)
        write(tmp_path, f"sys/class/hwmon/hwmon{chip}/temp1_label", label)
        write(tmp_path, f"sys/class/hwmon/hwmon{chip}/temp1_input", 61250)
    write(tmp_path, "sys/class/hwmon/hwmon2/temp2_label", "Core 0")
    write(tmp_path, "sys/class/hwmon/hwmon2/temp2_input", 60000)
    expected = {"x86_pkg_temp": 54, "acpitz": 27.8, "acpitz_2": 29.8, "k10temp_Tctl": 61.25, "coretemp_Package_id_0": 61.25}
    assert read_temperatures_c(tmp_path) == expected
    with ThermalSource(tmp_path) as source:
        assert source.read() == {f"{name}_temperature_c": value for name, value in expected.items()}
        write(tmp_path, "sys/class/thermal/thermal_zone0/temp", 80000)
        assert source.read()["x86_pkg_temp_temperature_c"] == 80


def test_no_temperature_at_all(tmp_path):
    assert not ThermalSource.is_available(tmp_path)


# A new mapping in a process that does nothing else: otherwise freed memory would be reused, without growth.
MAPS_64_MIB = """
import mmap
input()
block = mmap.mmap(-1, 64 << 20)
block[:: 1 << 10] = b"x" * (64 << 10)
print("mapped", flush=True)
input()
"""


def test_memory_of_a_real_process():
    command = [sys.executable, "-I", "-S", "-c", MAPS_64_MIB]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
        ProcessMemorySource(child.pid, "it") as source,
    ):
        before = source.read()["rss_mib"]
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"mapped\n"
        grown = source.read()["rss_mib"]
        assert grown > before + 56  # the kernel counts a little late on machines of many cores
        pss = read_pss_mib(child.pid)
        assert pss is None or 56 < pss < grown + 8
        child.communicate(b"\n")
        assert source.read() == {}


def test_process_that_ended():
    with pytest.raises(MissingError), ProcessMemorySource(2**22 + 1, "gone"):
        pass
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
        ProcessMemorySource(child.pid, "x") as source,
    ):
        assert source.read()["rss_mib"] > 0
        child.communicate(b"\n")
        assert source.read() == {}
    assert read_pss_mib(2**22 + 1) is None
    assert read_context_switches(2**22 + 1) is None


def test_switches_of_a_real_process():
    before = read_context_switches(os.getpid())
    for _ in range(20):
        threading.Event().wait(0.001)  # yields the core
    passed = read_context_switches(os.getpid()).since(before)
    assert passed.voluntary >= 20
    assert passed.involuntary >= 0


def test_switches_of_all_threads_are_added(tmp_path):
    for thread, (mine, others) in enumerate(((5, 1), (7, 2))):
        text = f"Name:\tx\nvoluntary_ctxt_switches:\t{mine}\nnonvoluntary_ctxt_switches:\t{others}"
        write(tmp_path, f"proc/42/task/{42 + thread}/status", text)
    assert read_context_switches(42, tmp_path) == ContextSwitches(12, 3)
