"""Tables of the further measurements that lie beside a report: stages of a change, corrupted images, frames at a rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from emca_deploy.reporting.corruptions import CORRUPTION_HEADINGS, corruption_rows
from emca_deploy.reporting.details.found import Found
from emca_deploy.reporting.formats import fixed, plain
from emca_deploy.reporting.ledger import LEDGER_HEADINGS, ledger_lines, ledger_rows
from emca_deploy.reporting.load import (
    co_run_lines,
    crowd_columns,
    highest_rate_lines,
    outlier_lines,
    paced_columns,
    real_image_lines,
)
from emca_deploy.reporting.table import Column
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.latency import ProfileReport

__all__ = ["FurtherTable", "further_tables"]


@dataclass(frozen=True)
class FurtherTable:
    """A table with a title, a sentence about it, and notes below it."""

    title: str
    lead: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()


def further_tables(found: Found) -> list[FurtherTable]:
    """Return the tables of the results of `validate` and `profile` in a report's folder."""
    tables: list[FurtherTable] = []
    for each in found.further:
        tables += _of_accuracy(each) if isinstance(each, AccuracyReport) else _of_latency(each)
    return tables


def _of_accuracy(report: AccuracyReport) -> list[FurtherTable]:
    name, tables = plain(report.artifact), []
    if (ledger := report.ledger) is not None:
        lead = (
            f"What each stage from the reference to the running engine changes, on {ledger.images:,} images: power of the logits "
            "over that of the change, share of the whole change, images of another class, points of top-1."
        )
        columns = _columns(LEDGER_HEADINGS, ledger_rows(ledger))
        tables.append(FurtherTable(f"Where the change of {name} comes from", lead, columns, ledger_lines(ledger)))
    if (corrupted := report.corruptions) is not None:
        lead = (
            f"Mean over kinds: top-1 {fixed(corrupted.top1)}%, the reference's {fixed(corrupted.reference_top1)}%. Each line has "
            "the means over five strengths, and the strength with the largest drop."
        )
        tables.append(
            FurtherTable(f"{name} on corrupted images", lead, _columns(CORRUPTION_HEADINGS, corruption_rows(corrupted)))
        )
    return tables


def _of_latency(report: ProfileReport) -> list[FurtherTable]:
    results, tables = report.results, []
    if (paced := paced_columns(results))[0].cells:
        lead = "Latency from when a frame comes to its answer. Small figures are upper bounds with 95% confidence, or intervals."
        tables.append(FurtherTable("Frames at a rate", lead, paced, highest_rate_lines(results)))
    if (crowd := crowd_columns(results))[0].cells:
        lead = "Latency and throughput of several calls at once; more calls than the knee stop helping."
        tables.append(FurtherTable("Several calls at once", lead, crowd))
    notes = [*co_run_lines(results), *real_image_lines(results), *outlier_lines(results)]
    if notes:
        tables.append(FurtherTable("Further latencies", "Two models at once, real images, and the slowest calls.", (), notes))
    return tables


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Column]:
    return [Column(heading, tuple(row[index] for row in rows)) for index, heading in enumerate(headings)]
