"""Telemetry has one form for every tool, and the older form of trtexec runs is converted to it."""

import pytest

from emca_deploy.errors import DataError
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.telemetry import ContextSwitches, Power, SourceTelemetry, TelemetryResult, ValueSummary, total_power

WHOLE = TelemetryResult(
    {
        "rapl": SourceTelemetry({"total": Power(61.2, 412.0, 38.0, 23.2, 156.2, 84)}),
        "temperature": SourceTelemetry(values={"cpu_temperature_c": ValueSummary(40.0, 39.5, 41.0, 12)}),
    },
    interval_ms=100.0,
    notes=("nvml: no library",),
    context_switches=ContextSwitches(312, 41),
)


def test_what_was_not_measured_is_not_written_and_the_rest_is_read_back():
    document = to_json(WHOLE)
    assert list(document) == ["sources", "interval_ms", "notes", "context_switches"]
    assert list(document["sources"]["temperature"]) == ["values"]
    assert from_json(TelemetryResult, document) == WHOLE
    assert to_json(TelemetryResult()) == {"sources": {}}


def test_the_earlier_form_of_trtexec_runs_is_read_with_its_power():
    rails = {"VDD_IN": {"mean": 4970.0, "max": 5100.0}, "VDD_CPU": {"mean": 900.0, "max": 1000.0}}
    found = {"samples": 7, "power_mw": rails, "total_power_mw": {"mean": 4970.0, "max": 5100.0}, "temperature_c": {"cpu": 45.0}}
    read = from_json(TelemetryResult, {"tegrastats": found})
    assert total_power(read) == {"tegrastats": Power(4.97, samples=7)}
    assert read.sources["tegrastats"].power["VDD_CPU"].power_w == pytest.approx(0.9)


@pytest.mark.parametrize(
    "document", [{"tegrastats": {"power_mw": {"VDD_IN": 5}}}, {"sources": {"x": {"power": 1}}}, {"watts": 1}]
)
def test_what_is_no_telemetry_is_refused(document):
    with pytest.raises(DataError):
        from_json(TelemetryResult, document)
