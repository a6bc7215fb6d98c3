"""The telemetry hook of a run: real processes, a growing copy of a recorded energy counter, and real time."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from emca_deploy.harness.measure.hook import NO_POWER, Telemetry, available_sources
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.telemetry import TelemetryResult
from emca_deploy.telemetry.processor import CpuFrequencySource
from emca_deploy.telemetry.rapl import RaplSource
from emca_deploy.telemetry.source import TelemetrySource

BUSY = "import time; x = bytearray(40 << 20)\nwhile True: time.sleep(0.001)"


def package(root, energy_uj):
    folder = root / "sys/class/powercap/intel-rapl:0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text("package-0\n")
    (folder / "max_energy_range_uj").write_text("262143328850\n")
    place = folder / "energy_uj"
    place.write_text(f"{energy_uj}\n")
    return place


@pytest.fixture
def make_spec(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return lambda name, **kwargs: RunnerSpec(name, "harness_runners:make", kwargs)


class Steps(TelemetrySource):
    """A clock rate that falls after some readings."""

    name = "cpu_frequency"

    def __init__(self, before_mhz, after_mhz, at):
        self.before_mhz, self.after_mhz, self.at, self.n = before_mhz, after_mhz, at, 0

    def read(self):
        self.n += 1
        return {
            "gpu_mhz": 9000.0,
            "core_0_load": 9000.0,
            "core_0_mhz": 100.0,
            "core_1_mhz": self.before_mhz if self.n <= self.at else self.after_mhz,
        }


@pytest.fixture
def growing_counter(tmp_path):
    """A counter whose energy is 2 W times the time, plus 8 W while the returned event is set."""
    place = package(tmp_path, 0)
    busy, stop = threading.Event(), threading.Event()

    def grow():
        energy_uj, last_ns = 0.0, time.monotonic_ns()
        with place.open("r+b", buffering=0) as stream:
            while not stop.is_set():
                now_ns = time.monotonic_ns()
                energy_uj += (now_ns - last_ns) / 1e3 * (10 if busy.is_set() else 2)
                last_ns = now_ns
                stream.seek(0)
                stream.write(b"%020d\n" % energy_uj)  # in place and of constant length: a reader never sees a partial value
                time.sleep(0.001)

    thread = threading.Thread(target=grow)
    thread.start()
    yield tmp_path, busy
    stop.set()
    thread.join()


def test_energy_memory_and_switches_of_a_run(growing_counter):
    root, busy = growing_counter
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child, Telemetry([RaplSource(root)], 0.02, idle_s=0.3) as telemetry:
        telemetry.sample_idle()
        telemetry.watch({"work": child.pid})
        telemetry.begin()
        windows = {"work": [], "rest": []}
        for _ in range(3):
            for name, its_windows in windows.items():
                (busy.set if name == "work" else busy.clear)()
                begin_ns = time.monotonic_ns()
                time.sleep(0.15)
                its_windows.append((begin_ns, time.monotonic_ns()))
        shares = telemetry.end(windows, {"work": 100, "rest": 100})
        child.kill()
    work, rest = (shares[name].sources["rapl"].power["total"] for name in ("work", "rest"))
    assert work.power_w > 2 * rest.power_w  # exactly 10 W and 2 W; other tests on the machine add noise
    assert work.idle_power_w == rest.idle_power_w
    assert work.net_power_w == pytest.approx(work.power_w - work.idle_power_w)
    busy_s = sum(end - begin for begin, end in windows["work"]) / 1e9
    assert work.energy_per_inference_mj == pytest.approx(work.power_w * busy_s / 100 * 1000)
    assert shares["work"].sources["process_memory"].values["rss_mib"].max > 5
    assert "process_memory" not in shares["rest"].sources
    assert shares["work"].context_switches.voluntary > 10
    assert shares["rest"].context_switches is None
    assert shares["work"].idle_s >= 0.3
    assert all(from_json(TelemetryResult, json.loads(json.dumps(to_json(share)))) == share for share in shares.values())
    assert not [thread for thread in threading.enumerate() if thread.name == "telemetry"]


def test_idle_is_as_long_as_asked():
    with Telemetry([], idle_s=0.2) as telemetry:
        begin = time.monotonic()
        telemetry.sample_idle()
        assert time.monotonic() - begin >= 0.2
        telemetry.begin()
        shares = telemetry.end({"a": [(0, 1)]}, {"a": 1})
    document = to_json(shares["a"])
    assert document.pop("idle_s") >= 0.2
    assert 0 < document.pop("sampling_core_share") < 1
    assert document == {"sources": {}, "interval_ms": 100.0, "energy": NO_POWER}


@pytest.mark.usefixtures("in_process")
def test_idle_takes_a_second_of_its_own():
    with Telemetry([]) as telemetry:
        telemetry.sample_idle()
        telemetry.begin()
        assert telemetry.end({"a": [(0, 1)]}, {"a": 1})["a"].idle_s == pytest.approx(1.0, abs=0.001)


def test_each_edge_of_a_run_is_sampled_however_long_the_interval():
    with Telemetry([Steps(3000.0, 3000.0, 0)], 60.0, idle_s=0.01) as telemetry:
        while not telemetry.samples:
            time.sleep(0.005)
        counts = [len(telemetry.samples)]
        for step in (telemetry.sample_idle, telemetry.begin, lambda: telemetry.end({"a": [(0, 1)]}, {"a": 1})):
            step()
            counts.append(len(telemetry.samples))
    assert [after - before for before, after in itertools.pairwise(counts)] == [1, 1, 1]


def test_a_process_that_is_no_longer_watched_counts_until_then():
    with Telemetry([], idle_s=0) as telemetry:
        telemetry.watch({"work": os.getpid()})
        telemetry.unwatch()
        ended = telemetry._of_processes("work")
        ballast = b"x" * 50_000_000
        for _ in range(3):
            time.sleep(0.001)
        assert telemetry._of_processes("work") == ended
        assert ended.pss_mib > 5
        del ballast


def test_run_without_idle_has_no_net_power(tmp_path):
    place = package(tmp_path, 0)
    with Telemetry([RaplSource(tmp_path)], 0.01) as telemetry:
        telemetry.begin()
        begin_ns = time.monotonic_ns()
        place.write_text("5000000")
        telemetry._recorder.sample_now()
        time.sleep(0.05)
        share = telemetry.end({"a": [(begin_ns, time.monotonic_ns())]}, {})["a"]
    assert share.idle_s is None
    assert set(to_json(share.sources["rapl"].power["total"])) == {"power_w", "samples", "blurred"}


def test_missing_source_is_a_note_and_absent(tmp_path):
    with Telemetry([RaplSource(tmp_path)], 0.01, idle_s=0) as telemetry:
        telemetry.sample_idle()
        telemetry.begin()
        shares = telemetry.end({"a": [(0, time.monotonic_ns())], "b": []}, {"a": 3, "b": 0})
    assert shares["a"].sources == {}
    (note,) = shares["a"].notes
    assert "rapl: no energy counters" in note
    assert shares["b"].notes == shares["a"].notes
    assert shares["a"].energy == NO_POWER
    assert shares["a"].idle_s is None


def test_interrupted_run_leaves_no_thread():
    telemetry = Telemetry([], 0.01, idle_s=0)

    def run():
        with telemetry:
            assert [thread for thread in threading.enumerate() if thread.name == "telemetry"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not [thread for thread in threading.enumerate() if thread.name == "telemetry"]


def test_sources_are_picked_by_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert available_sources(tmp_path) == []
    clocks = "".join(f"processor : {core}\ncpu MHz : 2000\n\n" for core in os.sched_getaffinity(0))
    for path, text in (("proc/cpuinfo", clocks), ("sys/class/thermal/thermal_zone0/temp", "41000\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    package(tmp_path, 0)
    (tmp_path / "tegrastats").write_text("#!/bin/sh\n")
    (tmp_path / "tegrastats").chmod(0o755)
    names = [source.name for source in available_sources(tmp_path, gpu_bus_id="0000:01:00.0")]
    assert names == ["cpu_frequency", "temperature", "rapl", "nvml", "tegrastats"]


def test_measure_puts_it_into_each_result(growing_counter, make_spec):
    root, _ = growing_counter
    protocol = Protocol(warmup_s=0.1, block_s=0.1, duration_s=0.6)
    with Telemetry([RaplSource(root), CpuFrequencySource()], 0.02, idle_s=0.2) as telemetry:
        report = measure([make_spec("a", latency_s=0.002), make_spec("b", latency_s=0.004)], protocol, telemetry=telemetry)
    for result in report.results:
        power = result.telemetry.sources["rapl"].power["total"]
        assert power.power_w == pytest.approx(2, rel=0.5)
        assert power.energy_per_inference_mj > 0
        assert result.telemetry.sources["process_memory"].values["rss_mib"].mean > 5
        assert result.telemetry.context_switches.voluntary > 10
    quick, slow = (result.telemetry.sources["rapl"].power["total"].energy_per_inference_mj for result in report.results)
    assert slow > quick
    json.dumps(to_json(report), allow_nan=False)


def test_energy_is_per_image(growing_counter, make_spec):
    root, _ = growing_counter
    with Telemetry([RaplSource(root)], 0.02, idle_s=0) as telemetry:
        protocol = Protocol(batch=50, warmup_s=0.05, block_s=0.1, duration_s=0.5)
        (result,) = measure([make_spec("a", latency_s=0.002)], protocol, telemetry=telemetry).results
    power = result.telemetry.sources["rapl"].power["total"]
    call_ms = result.latency_ms.mean
    assert power.energy_per_inference_mj == pytest.approx(power.power_w * call_ms / 50, rel=0.5)


def test_clock_that_falls_during_the_run_is_a_warning():
    with Telemetry([Steps(3000.0, 2000.0, 6)], 0.01, idle_s=0) as telemetry:
        telemetry.begin()
        while len(telemetry.samples) < 14:
            time.sleep(0.005)
        begin_ns = telemetry.samples[0].time_ns
        shares = telemetry.end({"a": [(begin_ns, time.monotonic_ns())], "b": [(0, 1)]}, {"a": 1, "b": 1})
    assert "fell by 33%" in shares["a"].warnings[0]
    assert shares["b"].warnings == ()


def test_switches_of_processes_one_after_the_other_add_up_and_the_largest_memory_counts():
    """The first process has ended, and another one may have its number, when the run is over."""
    found = []
    with Telemetry([], 0.02, idle_s=0) as telemetry:
        telemetry.begin()
        for ballast in (30_000_000, 1):
            code = f"ballast = b'x' * {ballast}\nprint(flush=True)\n{BUSY}"
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
                child.stdout.readline()  # it has its memory
                telemetry.watch({"work": child.pid})
                time.sleep(0.5)
                if ballast > 1:
                    telemetry.unwatch()
                    found.append(telemetry._ended["work"])
                else:
                    found.append(telemetry.end({"work": [(0, 1)]}, {"work": 1})["work"])
                child.kill()
    first, both = found
    assert both.pss_mib == first.pss_mib > 25
    if first.context_switches is not None:
        assert both.context_switches.voluntary > first.context_switches.voluntary


def test_measure_watches_what_takes_the_place_of_others(make_spec, monkeypatch):
    from emca_deploy.harness.measure import starting

    monkeypatch.setattr(starting, "available_mib", lambda: 1.0)  # memory for one process of each only
    protocol = Protocol(warmup_s=0, block_s=0.1, duration_s=0.6, processes=2)
    with Telemetry([], 0.02, idle_s=0) as telemetry:
        report = measure([make_spec("a", latency_s=0.002), make_spec("b", latency_s=0.004)], protocol, telemetry=telemetry)
    for result in report.results:
        assert set(result.block_builds) == {0, 1}
        assert result.telemetry.pss_mib > 5
        assert result.telemetry.context_switches.voluntary > 0.8 * result.samples  # each call of a fake sleeps
