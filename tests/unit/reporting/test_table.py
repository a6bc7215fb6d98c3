"""The columns of a profile's table."""

from dataclasses import replace

from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.reporting.table import deploy_columns, profile_columns, profile_heading
from emca_deploy.results.latency import Comparison, ProfileReport


def cells(report, heading):
    (column,) = (column for column in profile_columns(report) if column.heading == heading)
    return column.cells


def test_device_time_is_shown_where_there_is_one(candidate):
    host, device = candidate("torch fp32", p50_ms=8.0).latency, candidate("tensorrt fp16", p50_ms=2.0).latency
    device = replace(device, device_ms=replace(device.latency_ms, p50=1.25))
    assert cells(ProfileReport((host, device), (), {}), "device ms") == ("-", "1.25")
    assert set(cells(ProfileReport((host,), (), {}), "device ms")) == {"-"}  # this column is left out


def test_verdicts_stand_beside_the_ratios(candidate):
    results = tuple(candidate(name).latency for name in ("a int8", "b int8", "c int8"))
    comparisons = (
        Comparison("b", "a", 1.5, (1.4, 1.6), "faster"),
        Comparison("c", "a", 1.0, (0.9, 1.1), "no difference shown"),
    )
    report = ProfileReport(results, comparisons, {})
    assert cells(report, "speed-up") == ("first", "1.50x", "1.00x")
    assert cells(report, "") == ("", "faster", "no difference shown")
    assert "speed-up" not in [column.heading for column in profile_columns(ProfileReport(results[:1], (), {}))]


def test_heading_says_how_it_was_measured_where_that_is_known(candidate):
    results = (candidate("a int8").latency,)
    assert profile_heading(ProfileReport(results, (), {})) == "single-stream, batch 1, target cpu"
    protocol = Protocol().record(45, "interval within 1 %")
    heading = profile_heading(ProfileReport(results, (), {}, protocol=protocol))
    assert heading == "single-stream, batch 1, target cpu; 45 rounds of 0.05 s, stopped by: interval within 1 %"


def test_a_detector_has_a_column_for_each_average_precision_and_its_drop(detector):
    columns = {column.heading: column for column in deploy_columns(detector)}
    assert columns["box AP"].cells == ("60.00", "59.70")
    assert columns["box drop"].cells == ("-", "0.30")
    assert columns["box drop"].interval == ("", "0.10 to 0.45")
    assert columns["mask drop"].cells == ("-", "0.15")
    assert columns["agree %"].cells == ("-", "99.00")
    assert set(columns["SQNR dB"].cells) == {"-"}
