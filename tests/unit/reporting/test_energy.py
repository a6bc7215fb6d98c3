"""Energy in a profile's table: from the most inclusive source, without a column if there is none."""

from dataclasses import replace

import pytest

from emca_deploy.reporting.formats import NONE
from emca_deploy.reporting.table import energy_columns, profile_columns
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.results.load import LatencySummary
from emca_deploy.results.telemetry import Power, SourceTelemetry, TelemetryResult, total_power

LATENCY = LatencySummary(1, 1, 1, 1, 1, 1, 1, 1, 0, (1, 1))
RESULT = LatencyResult("a.onnx", "onnxruntime", "fp32", "cpu", "single-stream", 1, LATENCY, 1000, 10, 5, 2, 100, True)


def meter(power_w, energy_mj, net_mj=None):
    return SourceTelemetry({"total": Power(power_w, energy_mj, net_energy_per_inference_mj=net_mj, samples=9)})


def with_sources(**sources):
    return replace(RESULT, telemetry=TelemetryResult(sources, interval_ms=100.0))


def test_energy_of_each_candidate():
    results = [with_sources(rapl=meter(12.5, 25, 15)), with_sources(rapl=meter(10, 8.25, 3)), RESULT]
    watts, energy, net = energy_columns(results)
    assert (watts.heading, watts.cells) == ("W (rapl)", ("12.5", "10.0", NONE))
    assert (energy.heading, energy.cells) == ("mJ/image", ("25.00", "8.25", NONE))
    assert (net.heading, net.cells) == ("above idle", ("15.00", "3.00", NONE))


def test_a_board_meter_comes_before_the_parts_it_measures():
    sources = {"rapl": meter(10, 1), "cpu_frequency": SourceTelemetry(), "nvml": meter(70, 2), "other": meter(1, 1)}
    assert list(total_power(TelemetryResult(sources))) == ["nvml", "rapl", "other"]
    assert next(iter(total_power(TelemetryResult({**sources, "ina3221": meter(15, 3)})))) == "ina3221"
    assert total_power(TelemetryResult()) == {}


def test_rails_without_a_total_are_not_added_up():
    rails = SourceTelemetry({"VDD_CPU_CV": Power(1.0), "VDD_GPU_SOC": Power(2.0)})
    assert energy_columns([with_sources(tegrastats=rails)]) == ()


@pytest.mark.parametrize("telemetry", [TelemetryResult(), TelemetryResult(energy="not measured")])
def test_no_column_without_a_meter(telemetry):
    report = ProfileReport((replace(RESULT, telemetry=telemetry),), (), {})
    assert not [column for column in profile_columns(report) if "mJ" in column.heading or "W" in column.heading]


def test_columns_are_in_the_profile():
    report = ProfileReport((with_sources(nvml=meter(71.5, 4, 2)),), (), {})
    assert {"W (nvml)", "mJ/image", "above idle"} <= {column.heading for column in profile_columns(report)}
