"""The table of a sweep: as columns of text for pages and Markdown, and as values for CSV."""

from collections.abc import Iterator, Mapping
from typing import Any

from emca_deploy.reporting.formats import NONE, fixed, interval, uniform, upper
from emca_deploy.reporting.sweeps.names import shown_value, varied_values
from emca_deploy.reporting.sweeps.words import OUTCOMES, reason_of
from emca_deploy.reporting.table import Column
from emca_deploy.results.sweep import SweepRow, ms_per_image
from emca_deploy.results.sweep_choice import CellVerdict, SweepDocument

__all__ = ["cells_of", "columns_of", "sort_values", "values_of"]

_PAIRS = ("p50_ci95_ms", "drop_ci95", "predicted_ci95_ms")
_FIGURES = (
    "p50_ms", "p50_ci95_ms", "p90_ms", "p99_ms", "p99_upper95_ms", "images_per_s", "metric", "accuracy", "drop", "drop_ci95",
    "file_mib", "stable", "seconds", "estimate_s", "predicted_ms", "predicted_ci95_ms", "front_chance", "pareto",
)  # fmt: skip


def cells_of(document: SweepDocument) -> list[tuple[SweepRow, CellVerdict]]:
    """Return each cell with its verdict, group by group, the finished ones from the fastest to the slowest."""
    rows = {row.key: row for row in document.sweep.cells}
    return [(rows[verdict.key], verdict) for group in document.groups for verdict in group.cells]


def columns_of(document: SweepDocument, names: Mapping[str, str]) -> tuple[Column, ...]:
    """Return the columns of the table; values that all cells share have none."""
    cells = cells_of(document)
    rows = [row for row, _ in cells]
    metrics = [name for name in ("top-1", "AP") if any(row.metric == name for row in rows)]
    times = uniform([ms_per_image(row) if row.status == "done" else None for row in rows])
    milliseconds = uniform([value for row in rows for value in (row.p50_ms, row.p99_ms)])
    return (
        *(Column(_title(name), tuple(shown_value(row.cell, name) for row in rows)) for name in varied_values(rows)),
        Column("verdict", tuple(OUTCOMES[verdict.outcome] for _, verdict in cells)),
        Column("ms per image", tuple(times)),
        Column("p50 ms", tuple(milliseconds[0::2]), tuple(_limits(row.p50_ci95_ms) for row in rows)),
        Column(
            "p99 ms", tuple(milliseconds[1::2]), tuple("" if row.p99_ms is None else upper(row.p99_upper95_ms) for row in rows)
        ),
        *(Column(f"{name} %", tuple(fixed(row.accuracy if row.metric == name else None) for row in rows)) for name in metrics),
        Column("drop, points", tuple(fixed(row.drop) for row in rows), tuple(_limits(row.drop_ci95) for row in rows)),
        Column("MiB", tuple(uniform([row.file_mib for row in rows]))),
        Column("reason", tuple(reason_of(verdict, row, names) or NONE for row, verdict in cells)),
    )


def sort_values(document: SweepDocument) -> dict[str, list[float | str]]:
    """Return the numbers that columns are sorted by, by their headings; "" where there is none."""
    rows = [row for row, _ in cells_of(document)]
    found: dict[str, list[float | None]] = {
        "ms per image": [ms_per_image(row) if row.status == "done" else None for row in rows],
        "p50 ms": [row.p50_ms for row in rows],
        "p99 ms": [row.p99_ms for row in rows],
        "top-1 %": [row.accuracy if row.metric == "top-1" else None for row in rows],
        "AP %": [row.accuracy if row.metric == "AP" else None for row in rows],
        "drop, points": [row.drop for row in rows],
        "MiB": [row.file_mib for row in rows],
    }
    return {name: ["" if value is None else value for value in values] for name, values in found.items()}


def _title(name: str) -> str:
    return name.replace("_", " ")


def _limits(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else interval(limits)


def values_of(document: SweepDocument, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a record for each cell, with the names and units of the index; an interval has two values."""
    for row, verdict in cells_of(document):
        cell = {name: getattr(row.cell, name) for name in type(row.cell).__dataclass_fields__}
        record = {"key": row.key, **cell, "status": row.status, "verdict": verdict.outcome}
        record["ms_per_image"] = ms_per_image(row) if row.status == "done" else None
        for name in _FIGURES:
            value = getattr(row, name)
            if name in _PAIRS:
                record[f"{name}_low"], record[f"{name}_high"] = value or (None, None)
            else:
                record[name] = value
        yield {**record, "reason": reason_of(verdict, row, names)}
