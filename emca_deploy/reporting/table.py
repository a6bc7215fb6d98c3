"""The columns of tables as text: of a deployment, for the terminal and the page, and of a profile."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emca_deploy.reporting.formats import NONE, fixed, interval, plain, uniform, upper
from emca_deploy.results.accuracy import ReferenceComparison
from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.detection import DetectionComparison
from emca_deploy.results.figures import Figure, figures_of
from emca_deploy.results.latency import LatencyResult, ProfileReport
from emca_deploy.results.telemetry import total_power

__all__ = ["Column", "deploy_columns", "deploy_values", "energy_columns", "numbers_in", "profile_columns", "profile_heading"]

# A board's own meter includes everything; then the accelerator, then the processor.
_ORDER = ("ina3221", "tegrastats", "nvml", "rapl")

_HEADINGS = {
    "top-1": ("top-1 %", "drop, points"), "box AP": ("box AP", "box drop"), "mask AP": ("mask AP", "mask drop"),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: Name with the unit.
        cells: Text for each row.
        interval: 95% interval or bound of each cell, or "".
        rank: Order of removal where space is short, the highest first; 0 is never removed.
        interval_rank: Rank of the intervals.
    """

    heading: str
    cells: tuple[str, ...]
    interval: tuple[str, ...] = ()
    rank: int = 0
    interval_rank: int = 0


def deploy_columns(report: DeployReport) -> tuple[Column, ...]:
    """Return the columns of a deployment's table, with a row for each candidate in the report's order."""
    rows = report.candidates
    latencies = [c.latency.latency_ms for c in rows]
    milliseconds = uniform([value for latency in latencies for value in (latency.p50, latency.p99)])
    return (
        Column("candidate", tuple(plain(c.name) for c in rows)),
        *_accuracy_columns(report),
        Column("agree %", _each(report, lambda r: fixed(r.agreement)), rank=4),
        Column("SQNR dB", _each(report, _sqnr), rank=6),
        Column("typical dB", _each(report, _typical), rank=8),
        Column("p50 ms", tuple(milliseconds[0::2])),
        Column("p99 ms", tuple(milliseconds[1::2]), tuple(upper(s.p99_upper95) for s in latencies), 2, 9),
        Column("images/s", tuple(uniform([c.latency.throughput_images_per_s for c in rows])), rank=7),
        Column("MiB", tuple(uniform([c.file_mib for c in rows])), rank=5),
        Column("speed-up", tuple(_speedup(report, c) for c in rows), tuple(_interval(c.speedup_ci95) for c in rows), 0, 3),
    )


def _accuracy_columns(report: DeployReport) -> list[Column]:
    """Return two columns for each figure: its value and its drop."""
    columns = []
    for name in (figure.name for figure in figures_of(report.candidates[0].accuracy)):
        figures = [_figure(candidate, name) for candidate in report.candidates]
        # The baseline has no drop from itself.
        drops = [f if c.name != report.baseline else Figure(name, None) for f, c in zip(figures, report.candidates, strict=True)]
        value, drop = _HEADINGS[name]
        columns.append(Column(value, tuple(fixed(figure.value) for figure in figures)))
        columns.append(Column(drop, tuple(fixed(f.drop) for f in drops), tuple(_interval(f.drop_ci95) for f in drops)))
    return columns


def _figure(candidate: DeployCandidate, name: str) -> Figure:
    return next((figure for figure in figures_of(candidate.accuracy) if figure.name == name), Figure(name, None))


def _each(report: DeployReport, cell: Callable[[ReferenceComparison | DetectionComparison], str]) -> tuple[str, ...]:
    """Return each candidate's cell about its comparison with the baseline, which itself has none."""
    references = (None if c.name == report.baseline else c.accuracy.reference for c in report.candidates)
    return tuple(NONE if reference is None else cell(reference) for reference in references)


def _sqnr(reference: ReferenceComparison | DetectionComparison) -> str:
    if isinstance(reference, DetectionComparison):
        return NONE
    return "exact" if reference.sqnr_db is None else fixed(reference.sqnr_db, 1)


def _typical(reference: ReferenceComparison | DetectionComparison) -> str:
    if isinstance(reference, DetectionComparison):
        return NONE
    if reference.typical_sqnr_db is None:
        return "exact" if reference.sqnr_db is None else NONE  # an older result does not have the field
    return fixed(reference.typical_sqnr_db, 1)


def _interval(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else interval(limits)


def _speedup(report: DeployReport, candidate: DeployCandidate) -> str:
    return "baseline" if candidate.name == report.baseline else f"{fixed(candidate.speedup)}x"


def deploy_values(report: DeployReport) -> Iterator[dict[str, Any]]:
    """Yield a record for each candidate; an interval has two values."""
    for each in report.candidates:
        summary = each.latency.latency_ms
        low, high = each.speedup_ci95 or (None, None)
        record = {
            "name": each.name,
            "artifact": each.latency.artifact,
            "p50_ms": summary.p50,
            "p50_ci95_ms_low": summary.p50_ci95[0],
            "p50_ci95_ms_high": summary.p50_ci95[1],
            "p90_ms": summary.p90,
            "p99_ms": summary.p99,
            "p99_upper95_ms": summary.p99_upper95,
            "images_per_s": each.latency.throughput_images_per_s,
            "file_mib": each.file_mib,
            "speedup": each.speedup,
            "speedup_ci95_low": low,
            "speedup_ci95_high": high,
            "stable": each.latency.stable,
        }
        for figure in figures_of(each.accuracy):
            name, ends = figure.name.replace(" ", "_").replace("-", ""), figure.drop_ci95 or (None, None)
            record[name], record[f"{name}_drop"] = figure.value, figure.drop
            record[f"{name}_drop_ci95_low"], record[f"{name}_drop_ci95_high"] = ends
        yield record


def numbers_in(columns: Sequence[Column]) -> dict[str, list[float | str]]:
    """Return the numbers to sort each column by, by its heading; "" for a cell without one. Columns of words are left out."""
    found = {column.heading: [_number(cell) for cell in column.cells] for column in columns[1:]}
    return {heading: values for heading, values in found.items() if any(value != "" for value in values)}


def _number(cell: str) -> float | str:
    try:
        return float(cell.replace(",", "").removesuffix("x"))
    except ValueError:
        return 1.0 if cell == "baseline" else ""


def profile_heading(report: ProfileReport) -> str:
    """Return one line about the measurement."""
    first = report.results[0]
    back_to_back = ", calls back to back" if first.scenario == "paced" else ""
    parts = [f"{first.scenario}{back_to_back}, batch {first.batch}, target {plain(first.target)}"]
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
        Column("p90 ms", tuple(milliseconds[1::3]), tuple(upper(s.p90_upper95) for s in summaries), 6, 12),
        Column("p99 ms", tuple(milliseconds[2::3]), tuple(upper(s.p99_upper95) for s in summaries), 2, 9),
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
