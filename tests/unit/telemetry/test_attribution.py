"""Shares of telemetry, compared with exactly known power."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.results.telemetry import SourceTelemetry, ValueSummary
from emca_deploy.telemetry.attribution import attribute
from emca_deploy.telemetry.recorder import Sample

MS = 1_000_000
WATTS = {"a": 10.0, "b": 25.0}


def joules_until(time_ns, segments):
    return sum(watts * (min(end, time_ns) - begin) / 1e9 for begin, end, watts in segments if begin < time_ns)


def timeline(rounds=12, block_ms=250, idle_ms=1000):
    """Idle at 5 W, then alternating blocks of a at 10 W and b at 25 W."""
    segments, windows = [(0, idle_ms * MS, 5.0)], {"a": [], "b": []}
    now = idle_ms * MS
    for index in range(2 * rounds):
        name = "ab"[index % 2]
        windows[name].append((now, now + block_ms * MS))
        segments.append((now, now + block_ms * MS, WATTS[name]))
        now += block_ms * MS
    return segments, windows, now


@given(phase=st.integers(0, 99), jitter=st.lists(st.integers(0, 15), min_size=10, max_size=10), offset=st.integers(0, 10**9))
def test_counter_gives_each_candidate_its_own_power(phase, jitter, offset):
    segments, windows, end = timeline()
    times = [ms * MS + jitter[ms // 100 % 10] * MS for ms in range(phase, end // MS, 100)]
    samples = [Sample(t, "rapl", {"package_0_energy_j": offset / 1e6 + joules_until(t, segments)}) for t in times]
    shares = attribute(samples, windows, [(0, 1000 * MS)], {"a": 1000, "b": 300})
    for name, watts in WATTS.items():
        power = shares[name]["rapl"].power["package_0"]
        count = {"a": 1000, "b": 300}[name]
        assert power.power_w == pytest.approx(watts, rel=1e-5)
        assert power.idle_power_w == pytest.approx(5, rel=1e-5)
        assert power.net_power_w == pytest.approx(watts - 5, rel=1e-5)
        assert power.energy_per_inference_mj == pytest.approx(watts * 3.0 / count * 1000, rel=1e-5)
        assert power.net_energy_per_inference_mj == pytest.approx((watts - 5) * 3.0 / count * 1000, rel=1e-5)
        assert power.blurred is False


def test_blocks_shorter_than_the_interval_are_blurred_and_said():
    segments, windows, end = timeline(rounds=40, block_ms=50)
    samples = [Sample(t, "rapl", {"energy_j": joules_until(t, segments)}) for t in range(0, end + 100 * MS, 100 * MS)]
    power = {name: share["rapl"].power["total"] for name, share in attribute(samples, windows).items()}
    assert power["a"].blurred
    assert power["b"].blurred
    assert power["a"].power_w + power["b"].power_w == pytest.approx(35)  # mixed between the two, but not lost
    assert power["a"].energy_per_inference_mj is None
    assert power["a"].idle_power_w is None


def test_gauge_is_integrated_inside_the_windows():
    # A ramp 0..10 W over 1 s, sampled at 0, 0.5 and 1 s: 5 J; the 99 W between the windows does not count.
    window, other = (0, 1000 * MS), (1200 * MS, 2200 * MS)
    points = [(0, 0.0), (500, 5.0), (1000, 10.0), (1100, 99.0), (1300, 4.0)]
    samples = [Sample(ms * MS, "nvml", {"power_w": watts}) for ms, watts in points]
    one = attribute(samples, {"x": [window]}, (), {"x": 10})["x"]["nvml"].power["total"]
    assert one.power_w == pytest.approx(5)
    assert one.energy_per_inference_mj == pytest.approx(500)
    both = attribute(samples, {"x": [window, other]}, (), {"x": 10})["x"]["nvml"].power["total"]
    assert both.power_w == pytest.approx(4.5)  # one sample counts for its whole window
    assert both.samples == 4


def test_windows_without_a_sample_take_the_mean_power_of_the_others():
    samples = [Sample(50 * MS, "tegrastats", {"VDD_IN_power_mw": 4000.0})]
    windows = {"x": [(0, 100 * MS), (200 * MS, 300 * MS)]}
    power = attribute(samples, windows, (), {"x": 2})["x"]["tegrastats"].power["VDD_IN"]
    assert power.power_w == pytest.approx(4)
    assert power.energy_per_inference_mj == pytest.approx(400)  # 0.2 s at 4 W, 2 inferences


def test_counter_replaces_power_of_the_same_channel_whichever_comes_first():
    for names in (("power_w", "energy_j"), ("energy_j", "power_w")):
        samples = [Sample(t * MS, "nvml", {n: 3.0 * t / 1000 if n == "energy_j" else 50.0 for n in names}) for t in (0, 100)]
        power = attribute(samples, {"x": [(0, 100 * MS)]})["x"]["nvml"].power
        assert power["total"].power_w == pytest.approx(3)


def test_power_stands_in_where_the_counter_has_no_value():
    samples = [Sample(0, "nvml", {"energy_j": 1.0, "power_w": 50.0})]
    assert attribute(samples, {"x": [(0, 100 * MS)]})["x"]["nvml"].power["total"].power_w == 50


def test_what_no_sample_tells_is_absent():
    samples = [Sample(500 * MS, "temperature", {"cpu_temperature_c": 40.0}), Sample(900 * MS, "rapl", {"energy_j": 1.0})]
    shares = attribute(samples, {"x": [(0, 100 * MS)], "y": [(450 * MS, 600 * MS)], "z": []}, [(0, 10)], {"x": 5})
    assert shares == {
        "x": {},
        "y": {"temperature": SourceTelemetry(values={"cpu_temperature_c": ValueSummary(40.0, 40.0, 40.0, 1)})},
        "z": {},
    }


def test_owned_samples_are_about_their_candidate_only():
    samples = [Sample(1, "process_memory", {"rss_mib": value}, owner) for owner, value in (("a", 10.0), ("b", 20.0))]
    shares = attribute(samples, {"a": [(0, 2)], "b": [(0, 2)], "c": [(0, 2)]})
    assert shares["a"]["process_memory"].values["rss_mib"].mean == 10
    assert shares["b"]["process_memory"].values["rss_mib"].mean == 20
    assert shares["c"] == {}


def test_power_below_idle_is_negative_not_zero():
    samples = [Sample(t * MS, "rail", {"power_mw": 5000.0 if t < 100 else 4000.0}) for t in range(0, 200, 10)]
    power = attribute(samples, {"x": [(100 * MS, 200 * MS)]}, [(0, 99 * MS)], {"x": 1})["x"]["rail"].power["total"]
    assert power.net_power_w == pytest.approx(-1)


def test_power_and_temperature_over_time_are_those_inside_the_windows():
    segments, windows, end = timeline()
    samples = [
        Sample(t, "rapl", {"energy_j": joules_until(t, segments), "cpu_temperature_c": 40.0 + t / 1e9, "clock_mhz": 9.0})
        for t in range(0, end, 10 * MS)
    ]
    for name, watts in WATTS.items():
        found = attribute(samples, windows)[name]["rapl"].over_time
        assert set(found) == {"total_power_w", "cpu_temperature_c"}
        power, degrees = found["total_power_w"], found["cpu_temperature_c"]
        assert set(power.values) == {watts}  # no pair of samples crosses the edge of a block
        assert len(power.values) <= 240
        first = windows[name][0][0] / 1e9
        assert degrees.values == pytest.approx([40 + first + time for time in degrees.times_s], abs=0.01)
        inside = [
            any(begin / 1e9 - 1e-3 <= first + time <= stop / 1e9 + 1e-3 for begin, stop in windows[name])
            for time in power.times_s
        ]
        assert all(inside)
