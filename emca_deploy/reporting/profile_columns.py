"""The columns of a profile's table, as text."""

from collections.abc import Sequence

from emca_deploy.reporting.formats import fixed, interval, plain, uniform
from emca_deploy.reporting.table import Column
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.results.telemetry import Power, TelemetryResult

__all__ = ["energy_columns", "profile_columns", "profile_heading", "total_power"]

# A board's own meter includes everything; then the accelerator, then the processor.
_ORDER = ("ina3221", "tegrastats", "nvml", "rapl")


def profile_heading(report: ProfileReport) -> str:
    """Return one line about the measurement."""
    first = report.results[0]
    parts = [f"{first.scenario}, batch {first.batch}, target {plain(first.target)}"]
    if report.protocol is not None:
        protocol = report.protocol
        parts.append(f"{protocol.rounds} rounds of {protocol.block_s:g} s, stopped by: {plain(protocol.stop)}")
    return "; ".join(parts)


def profile_columns(report: ProfileReport) -> tuple[Column, ...]:
    """Return the columns, with a row for each result in the report's order."""
    results = report.results
    summaries = [result.latency_ms for result in results]
    milliseconds = uniform([value for s in summaries for value in (s.p50, s.p90, s.p99)])
    rates = [interval(r.throughput_ci95) if r.throughput_ci95 else "" for r in results]
    columns = [
        Column("artifact", tuple(plain(result.artifact) for result in results)),
        Column("backend", tuple(plain(result.backend) for result in results), rank=1),
        Column("precision", tuple(plain(result.precision) for result in results), rank=5),
        Column("p50 ms", tuple(milliseconds[0::3]), tuple(interval(s.p50_ci95) for s in summaries), 0, 9),
        Column("p90 ms", tuple(milliseconds[1::3]), rank=6),
        Column("p99 ms", tuple(milliseconds[2::3]), rank=2),
        Column("device ms", tuple(uniform([r.device_ms.p50 if r.device_ms else None for r in results])), rank=4),
        Column("images/s", tuple(uniform([result.throughput_images_per_s for result in results])), tuple(rates), 3, 9),
        *energy_columns(results),
        Column("load ms", tuple(uniform([result.load_ms for result in results])), rank=7),
        Column("RSS MiB", tuple(fixed(result.peak_rss_mib, 0) for result in results), rank=8),
    ]
    if len(report.comparisons) == len(results) - 1 > 0:
        ratios = ["first", *(f"{fixed(c.ratio_p50)}x" for c in report.comparisons)]
        limits = ["", *(interval(c.ratio_ci95) for c in report.comparisons)]
        columns.append(Column("speed-up", tuple(ratios), tuple(limits), 0, 1))
        columns.append(Column("", ("", *(c.verdict for c in report.comparisons)), rank=10))
    return tuple(columns)


def total_power(telemetry: TelemetryResult) -> dict[str, Power]:
    """Return the total power by source, the source that includes most first."""
    found = {name: source.power["total"] for name, source in telemetry.sources.items() if "total" in source.power}
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in _ORDER, (*_ORDER, name).index(name)))}


def energy_columns(results: Sequence[LatencyResult]) -> tuple[Column, ...]:
    """Return power, energy per image and net energy per image by the first source; none without a power meter."""
    totals = [total_power(result.telemetry) for result in results]
    source = next((name for total in totals for name in total), None)
    if source is None:
        return ()
    powers = [total.get(source) for total in totals]
    return (
        Column(f"W ({plain(source)})", tuple(uniform([p.power_w if p else None for p in powers])), rank=11),
        Column("mJ/image", tuple(uniform([p.energy_per_inference_mj if p else None for p in powers])), rank=2),
        Column("above idle", tuple(uniform([p.net_energy_per_inference_mj if p else None for p in powers])), rank=11),
    )
