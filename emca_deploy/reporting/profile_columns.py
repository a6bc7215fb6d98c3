"""The table of a profile, as text."""

from emca_deploy.reporting.energy import energy_columns
from emca_deploy.reporting.formats import fixed, interval, plain, uniform
from emca_deploy.reporting.table import Column
from emca_deploy.results.latency import ProfileReport

__all__ = ["profile_columns", "profile_heading"]


def profile_heading(report: ProfileReport) -> str:
    """Return one line on how it was measured."""
    first = report.results[0]
    parts = [f"{first.scenario}, batch {first.batch}, target {plain(first.target)}"]
    if report.protocol is not None:
        protocol = report.protocol
        parts.append(f"{protocol.rounds} rounds of {protocol.block_s:g} s, stopped by: {plain(protocol.stop)}")
    return "; ".join(parts)


def profile_columns(report: ProfileReport) -> tuple[Column, ...]:
    """Return the columns of a profile's table, a row for each result in the report's order."""
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
