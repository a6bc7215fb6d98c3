"""The tegrastats process, with an executable of this name that prints recorded lines."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refusals import refusing

from emca_deploy.errors import MissingError
from emca_deploy.telemetry.recorder import Recorder
from emca_deploy.telemetry.tegrastats import parse_line
from emca_deploy.telemetry.tegrastats_source import TegrastatsSource, reading_of

SAMPLES = (Path(__file__).parent / "tegrastats_samples.txt").read_text().splitlines()
LINES = [line for line in SAMPLES if not line.startswith("#")]
ORIN_ROOT = next(line for line in LINES if "NVENC 79%@166" in line)
ORIN_NANO = next(line for line in LINES if "VDD_IN 4824mW" in line)


def script(folder, body):
    place = folder / "tegrastats"
    place.write_text(f"#!/bin/sh\n{body}\n")
    place.chmod(0o755)
    return place


def forever(line, folder):
    return f"echo $$ >> {folder}/pids\necho \"$@\" >> {folder}/arguments\nwhile :; do echo '{line}'; sleep 0.02; done"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid, seconds=20.0):
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(pid)


def test_lines_become_stamped_readings_and_the_process_ends(tmp_path):
    place = script(tmp_path, forever(ORIN_ROOT, tmp_path))
    begin_ns = time.monotonic_ns()
    with TegrastatsSource(50, command=[str(place)], timeout_s=20) as source:
        pid = int((tmp_path / "pids").read_text())
        assert is_running(pid)
        stamped = source.drain()
        deadline = time.monotonic() + 20
        while len(stamped) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
            stamped += source.drain()
    times = [time_ns for time_ns, _ in stamped]
    assert begin_ns < times[0] < times[-1] < time.monotonic_ns()
    assert times == sorted(times)
    assert all(values == reading_of(parse_line(ORIN_ROOT)) for _, values in stamped)
    assert (tmp_path / "arguments").read_text().split() == ["--interval", "50"]
    assert source.notes == []
    assert not is_running(pid)


def test_every_run_starts_a_new_one(tmp_path):
    source = TegrastatsSource(command=[str(script(tmp_path, forever(ORIN_ROOT, tmp_path)))], timeout_s=20)
    for _ in range(2):
        with source:
            assert source.drain()[-1][1]["VDD_CPU_CV_power_mw"] == 1607
    first, second = map(int, (tmp_path / "pids").read_text().split())
    assert first != second
    assert not is_running(first)
    assert not is_running(second)


def test_what_a_user_without_root_lacks_is_said(tmp_path):
    with TegrastatsSource(command=[str(script(tmp_path, forever(ORIN_NANO, tmp_path)))], timeout_s=20) as source:
        values = source.drain()[-1][1]
    assert values["gpu_load_percent"] == 0
    assert "gpu_mhz" not in values
    assert "emc_load_percent" not in values
    (note,) = source.notes
    assert "the GPU's clock, the memory controller" in note
    assert "power" not in note
    assert ("board or release" if os.geteuid() == 0 else "sudo") in note


def test_it_is_not_there():
    with refusing(MissingError, "/nonexistent/tegrastats") as caught:
        TegrastatsSource(command=["/nonexistent/tegrastats"]).__enter__()
    assert "JetPack" in caught.value.remedy


@pytest.mark.parametrize("body", ["echo 'cannot open nvmap' >&2; exit 1", "echo 'cannot open nvmap' >&2; echo hello; sleep 60"])
def test_it_says_nothing_that_is_understood(tmp_path, body):
    source = TegrastatsSource(command=[str(script(tmp_path, body))], timeout_s=2.0)
    with refusing(MissingError, "cannot open nvmap"):
        source.__enter__()


def test_it_ends_before_the_run_does(tmp_path):
    place = script(tmp_path, f"echo '{ORIN_ROOT}'; sleep 0.1; echo '{ORIN_ROOT}'")
    with TegrastatsSource(command=[str(place)], timeout_s=20) as source:
        deadline = time.monotonic() + 20
        while not source.notes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(source.drain()) == 2
        assert source.drain() == []
    (note,) = source.notes
    assert "ended before the run" in note


def test_one_that_ignores_the_request_to_end_is_killed(tmp_path):
    place = script(tmp_path, "trap '' TERM\n" + forever(ORIN_ROOT, tmp_path))
    with TegrastatsSource(command=[str(place)], timeout_s=20):
        pid = int((tmp_path / "pids").read_text())
    assert not is_running(pid)


def test_no_orphan_when_we_are_killed(tmp_path):
    place = script(tmp_path, forever(ORIN_ROOT, tmp_path))
    code = (
        "import sys, time\n"
        "from emca_deploy.telemetry.tegrastats_source import TegrastatsSource\n"
        "with TegrastatsSource(command=[sys.argv[1]], timeout_s=30):\n"
        "    print('up', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGKILL)
    wait_until_gone(int((tmp_path / "pids").read_text()))


def test_recorder_takes_its_times_not_the_recorders(tmp_path):
    source = TegrastatsSource(command=[str(script(tmp_path, forever(ORIN_ROOT, tmp_path)))], timeout_s=20)
    with Recorder([source], interval_s=0.2) as recorder:
        deadline = time.monotonic() + 20
        while len(recorder.samples) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(recorder.samples) >= 8
    assert len({sample.time_ns for sample in recorder.samples}) == len(recorder.samples)
    assert len(recorder.samples) > recorder.reads


def test_reading_has_no_value_that_the_line_lacks():
    for line in LINES:
        sample = parse_line(line)
        values = reading_of(sample)
        assert all(isinstance(value, float) for value in values.values())
        assert "total_power_mw" not in values
        assert "NC_power_mw" not in values
        assert ("swap_used_mib" in values) == (sample.swap_used_mib is not None)
        assert sum(name.startswith("core_") for name in values) == sum(mhz is not None for mhz in sample.cpu_freq_mhz)
        assert not any("CV0_temperature_c" in name and value < -200 for name, value in values.items())


def test_the_boards_rule_gives_the_total():
    rule = dict.get
    assert reading_of(parse_line(ORIN_NANO), lambda rails: rule(rails, "VDD_IN"))["total_power_mw"] == 4824
    assert "total_power_mw" not in reading_of(parse_line(ORIN_ROOT), lambda rails: rule(rails, "VDD_IN"))
    no_rails = next(line for line in LINES if "1689/3825MB" in line)
    assert "total_power_mw" not in reading_of(parse_line(no_rails), lambda rails: 1 / 0)


def test_an_interrupt_while_it_starts_leaves_no_process(tmp_path):
    source = TegrastatsSource(50, command=[str(script(tmp_path, forever("nothing of tegrastats", tmp_path)))])

    def interrupt(timeout_s):
        while not (tmp_path / "pids").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    source._first.wait = interrupt
    with pytest.raises(KeyboardInterrupt), source:
        pass
    wait_until_gone(int((tmp_path / "pids").read_text()))
