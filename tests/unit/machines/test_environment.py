"""The machine's record, its state from recorded trees, and the fingerprint that comparisons use."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.machines.environment import collect_environment, extend_fingerprint
from emca_deploy.machines.fingerprint import differing_parts, fingerprint_of, machine_parts, memory_class_gib
from emca_deploy.machines.machine_state import CpuTimes, QuotaThrottling, read_cpu_times, read_machine_state

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_MIB = os.sysconf("SC_PAGESIZE") / 2**20


def write(root, path, text):
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{text}\n")


@pytest.fixture
def server(tmp_path):
    """The file tree of an Intel server."""
    write(tmp_path, "proc/stat", f"cpu {TICKS} 0 {TICKS} {6 * TICKS} 0 0 0 {2 * TICKS} 0 0\ncpu0 1 2 3\nctxt 123456\nbtime 1")
    write(tmp_path, "proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable:    2048000 kB")
    write(tmp_path, "proc/vmstat", "nr_free_pages 1\npswpin 100\npswpout 156")
    write(tmp_path, "proc/loadavg", "0.50 1.25 2.00 3/400 1234")
    for what, total in (("cpu", 1), ("io", 2), ("memory", 3)):
        write(tmp_path, f"proc/pressure/{what}", f"some avg10=0.19 avg60=0.07 total={total}500000\nfull avg10=0.00 total=99")
    for core in range(4):
        folder = f"sys/devices/system/cpu/cpu{core}"
        write(tmp_path, f"{folder}/cpufreq/scaling_governor", "performance" if core else "powersave")
        write(tmp_path, f"{folder}/thermal_throttle/core_throttle_count", core)
        write(tmp_path, f"{folder}/thermal_throttle/package_throttle_count", 7)
    for core in os.sched_getaffinity(0):
        write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", 2_000_000)
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "x86_pkg_temp")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", 71000)
    for index, (kind, step) in enumerate((("Processor", 2), ("Processor", 1), ("pwm-fan", 4), ("cpu-fan", 3), ("TCC Offset", 9))):
        write(tmp_path, f"sys/class/thermal/cooling_device{index}/type", kind)
        write(tmp_path, f"sys/class/thermal/cooling_device{index}/cur_state", step)
    return tmp_path


def test_state_of_a_server(server):
    state = read_machine_state(server)
    assert state.cpu_times == CpuTimes(busy_s=2, steal_s=2, total_s=10)
    assert state.context_switches == 123456
    assert state.frequency_mhz == 2000
    assert state.governors == ("performance", "powersave")
    assert state.thermal_throttles == 0 + 1 + 2 + 3 + 7
    assert state.cooling_steps == 3
    assert state.temperature_c == 71
    assert (state.cpu_stall_s, state.io_stall_s, state.memory_stall_s) == (1.5, 2.5, 3.5)
    assert state.swapped_mib == pytest.approx(256 * PAGE_MIB)
    assert state.memory_available_mib == 2000
    assert state.load_average == (0.5, 1.25, 2)
    assert state.quota is None


def test_state_of_an_empty_tree_is_unknown_not_zero(tmp_path):
    state = read_machine_state(tmp_path)
    values = {name: value for name, value in vars(state).items() if name != "time_ns"}
    assert set(values.values()) == {None, ()}
    assert read_cpu_times(tmp_path) is None


def test_garbage_is_unknown(server):
    for path in ("proc/stat", "proc/meminfo", "proc/vmstat", "proc/loadavg", "proc/pressure/memory", "proc/self/cgroup"):
        write(server, path, "some cpu x y=z total=-1 : ::: \x00\n\n3:cpu:/\x00\nsome")
    state = read_machine_state(server)
    assert (state.cpu_times, state.context_switches, state.swapped_mib, state.load_average) == (None,) * 4
    assert state.memory_stall_s is None


FILES = ["proc/stat", "proc/meminfo", "proc/vmstat", "proc/loadavg", "proc/pressure/memory", "proc/self/cgroup", "proc/cpuinfo"]
WORDS = [
    "some",
    "total=",
    "total=12",
    "ctxt",
    "pswpin",
    "cpu",
    "0::/",
    "1:cpu:/a",
    "cpu MHz",
    "processor",
    ":",
    "nan",
    "7",
    "9" * 40,
]


@given(st.dictionaries(st.sampled_from(FILES), st.lists(st.sampled_from([*WORDS, "\n"]) | st.text(max_size=5))))
def test_whatever_the_files_say_the_state_is_json(texts):
    with tempfile.TemporaryDirectory() as folder:
        for path, words in texts.items():
            place = Path(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(" ".join(words).encode(errors="replace"))
        json.dumps(read_machine_state(Path(folder)).to_dict(), allow_nan=False)


def test_quota_of_a_container_with_cgroup_2(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/kubepods/pod1/abc")
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "usage_usec 1")
    write(tmp_path, "sys/fs/cgroup/kubepods/pod1/cpu.stat", "nr_periods 100\nnr_throttled 4\nthrottled_usec 250000")
    write(tmp_path, "sys/fs/cgroup/kubepods/pod1/abc/cpu.stat", "nr_periods 90\nnr_throttled 1\nthrottled_usec 50000")
    assert read_machine_state(tmp_path).quota == QuotaThrottling(100, 5, pytest.approx(0.3))


def test_quota_where_the_path_lies_above_the_mount(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/../../docker/abc")
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "nr_periods 10\nnr_throttled 2\nthrottled_usec 1000")
    assert read_machine_state(tmp_path).quota == QuotaThrottling(10, 2, pytest.approx(0.001))


def test_quota_of_a_container_with_cgroup_1(tmp_path):
    write(tmp_path, "proc/self/cgroup", "4:memory:/x\n3:cpuacct,cpu:/docker/abc\n0::/")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.stat", "nr_periods 10\nnr_throttled 2\nthrottled_time 1500000000")
    write(tmp_path, "sys/fs/cgroup/memory/cpu.stat", "nr_periods 9\nnr_throttled 9\nthrottled_time 9")
    assert read_machine_state(tmp_path).quota == QuotaThrottling(10, 2, pytest.approx(1.5))


def test_record_of_this_machine_becomes_json_and_back():
    environment = collect_environment()
    assert json.loads(json.dumps(environment, allow_nan=False)) == environment
    assert environment["state"]["cpu_times"]["total_s"] > 0
    assert environment["cpu"]["logical_cores"] == environment["fingerprint_parts"]["usable_cores"]


def test_fingerprint_is_the_same_in_another_process_and_follows_its_parts():
    code = "from emca_deploy.machines.environment import collect_environment as c; print(c()['fingerprint'])"
    environment = collect_environment()
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == environment["fingerprint"] == fingerprint_of(environment["fingerprint_parts"])
    assert len(other) == 16


def test_fewer_usable_cores_are_another_machine():
    core = min(os.sched_getaffinity(0))
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("one core only")
    code = (
        f"import os, json; os.sched_setaffinity(0, {{{core}}})\n"
        "from emca_deploy.machines.environment import collect_environment as c\n"
        "e = c(); print(json.dumps([e['fingerprint'], e['fingerprint_parts']]))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    fingerprint, parts = json.loads(output)
    here = collect_environment()
    assert fingerprint != here["fingerprint"]
    assert differing_parts(here["fingerprint_parts"], parts) == [
        f"usable_cores: {here['cpu']['logical_cores']}, not 1",
    ]


def test_parts_from_a_recorded_tree(server):
    write(server, "sys/devices/system/cpu/intel_pstate/no_turbo", 1)
    write(server, "sys/devices/system/cpu/smt/active", 1)
    write(server, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", 3_500_000)
    (server / "sys/devices/system/node/node0").mkdir(parents=True)
    (server / "sys/devices/system/node/node1").mkdir()
    parts = machine_parts(server)
    assert (parts["boost"], parts["smt"], parts["numa_nodes"], parts["max_frequency_mhz"]) == (False, True, 2, 3500)
    assert parts["governors"] == ["performance", "powersave"]
    write(server, "sys/devices/system/cpu/intel_pstate/no_turbo", 0)
    assert differing_parts(parts, machine_parts(server)) == ["boost: False, not True"]


def test_differences_name_what_only_one_side_has():
    a = {"cpu": "A", "governors": ["performance"], "power_mode": "MAXN"}
    b = {"cpu": "A", "governors": [], "boost": None}
    assert differing_parts(a, b) == ["governors: performance, not none", "power_mode: MAXN, not unknown"]
    assert differing_parts(a, a) == []


def test_more_parts_change_the_fingerprint():
    environment = collect_environment()
    board = extend_fingerprint(environment, {"power_mode": "15W"})
    assert board["fingerprint"] != environment["fingerprint"]
    assert board["fingerprint_parts"]["power_mode"] == "15W"
    assert "power_mode" not in environment["fingerprint_parts"]
    assert board == extend_fingerprint(environment, {"power_mode": "15W"})


@pytest.mark.parametrize(
    ("mib", "gib"),
    [(448, 1), (3964, 4), (7620, 8), (15389, 16), (30697, 30), (31919, 32), (62841, 64), (125772, 128), (515000, 512)],
)
def test_memory_class(mib, gib):
    assert memory_class_gib(mib) == gib


@given(st.integers(8, 2048), st.integers(0, 200))
def test_memory_class_holds_the_memory(gib, kept_mib):
    found = memory_class_gib(gib * 1024 - kept_mib)
    assert found * 1024 >= gib * 1024 - kept_mib
    assert found <= gib * 9 / 8 + 1
