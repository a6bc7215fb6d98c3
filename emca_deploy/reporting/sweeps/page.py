"""The page of a sweep: the choice first, then its plots, the table of all cells, and the details of each."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.reporting.details.accuracy import flip_styles
from emca_deploy.reporting.details.cell import CellDetails, Shared, details_of, numbers_of_each, shared_facts
from emca_deploy.reporting.details.found import Found
from emca_deploy.reporting.details.further import further_tables
from emca_deploy.reporting.exchange import as_csv
from emca_deploy.reporting.formats import NONE, facts, moment, plain
from emca_deploy.reporting.output import render_page
from emca_deploy.reporting.scripts import scripts_of
from emca_deploy.reporting.svg import swatch
from emca_deploy.reporting.sweeps.names import names_of
from emca_deploy.reporting.sweeps.plots import MOST_ROWS, front_plot, series_of, speed_plot
from emca_deploy.reporting.sweeps.table import cells_of, columns_of, sort_values, values_of
from emca_deploy.reporting.sweeps.words import OUTCOMES, Choice, change_of, choice_of
from emca_deploy.results.sweep import CellResult, SweepRow
from emca_deploy.results.sweep_choice import GroupChoice, SweepDocument

__all__ = ["render_sweep"]

_FRONT_CAPTION = (
    "Higher is more accurate and further left is faster. Bars are 95% intervals: of the time, and of the drop from the fp32 "
    "model on ONNX Runtime. The dashed line joins the Pareto front, the large marks."
)


@dataclass(frozen=True)
class _Plot:
    """An SVG element with its heading and caption."""

    title: str
    element: str
    caption: str


@dataclass(frozen=True)
class _Group:
    """A group on the page: its choice, and a plot for each metric and one for cells without an accuracy."""

    choice: Choice
    plots: list[_Plot]


def render_sweep(document: SweepDocument, cells: Mapping[str, CellResult], found: Found | None = None) -> str:
    """Return the page of a sweep.

    Args:
        document: the index of the sweep and the choice.
        cells: results of its cells by key, with their samples.
        found: what else its folder has.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    sweep = document.sweep
    names, shown = names_of(sweep.cells), cells_of(document)
    series = series_of([row for row, _ in shown if row.status == "done"])
    shared = shared_facts([cells[row.key] for row, _ in shown if row.key in cells])
    text = as_csv(values_of(document, names))
    found = found or Found()
    details = _details(document, cells, names, shared, found)
    return render_page(
        "sweeps/page.html",
        sweep=sweep,
        title=f"Sweep of {plain(Path(sweep.plan).name)}",
        created=moment(sweep.created),
        counts=_counts(sweep.cells),
        requirements=document.requirements,
        confidence=f"{document.confidence_percent:g}",
        groups=[_group(index, document, group, names, series) for index, group in enumerate(document.groups)],
        legend=[(swatch(index), name) for name, index in series.items()],
        columns=[column for column in columns_of(document, names) if any(cell != NONE for cell in column.cells)],
        sort=sort_values(document),
        rows=[(row, OUTCOMES[verdict.outcome], verdict.outcome) for row, verdict in shown],
        csv=b64encode(text.encode()).decode(),
        script=scripts_of(details),
        pictures=flip_styles(found.pictures, [card for each in details for card in each.cards]),
        details=details,
        further=further_tables(found),
        against=document.against,
        changes=[(names[each.key], *change_of(each)) for each in document.changes],
        shared=shared.pairs,
        provenance=_provenance(document),
    )


def _counts(rows: Sequence[SweepRow]) -> str:
    counts = [(sum(row.status == status for row in rows), word) for status, word in _STATUSES]
    return ", ".join(f"{count} {word}" for count, word in counts if count)


_STATUSES = (("done", "measured"), ("failed", "failed"), ("pending", "not measured"))


def _group(
    index: int, document: SweepDocument, group: GroupChoice, names: Mapping[str, str], series: Mapping[str, int]
) -> _Group:
    rows = {row.key: row for row in document.sweep.cells}
    done = [rows[each.key] for each in group.cells if rows[each.key].status == "done"]
    return _Group(choice_of(document, group, names), _plots(index, group, done, names, series))


def _plots(
    index: int, group: GroupChoice, done: Sequence[SweepRow], names: Mapping[str, str], series: Mapping[str, int]
) -> list[_Plot]:
    """Return a plot for each metric, and one for cells without an accuracy."""
    plots = []
    for metric in ("top-1", "AP"):
        if chosen := [row for row in done if row.metric == metric]:
            marked = [row.key for row in chosen if row.pareto or row.key == group.best]
            element = front_plot(f"front-{index}-{metric}", chosen, marked, names, series)
            plots.append(_Plot("Accuracy against time", element, _FRONT_CAPTION))
    if chosen := [row for row in done if row.metric is None]:
        caption = (
            f"Cells without an accuracy{f', the {MOST_ROWS} fastest' if len(chosen) > MOST_ROWS else ''}. Bars are 95% intervals."
        )
        plots.append(_Plot("Time per image", speed_plot(f"speed-{index}", chosen, names, series), caption))
    return plots


def _details(
    document: SweepDocument, cells: Mapping[str, CellResult], names: Mapping[str, str], shared: Shared, found: Found
) -> list[CellDetails]:
    shown = [(row, verdict) for row, verdict in cells_of(document) if row.key in cells]
    numbers = numbers_of_each(len(shown))
    return [
        details_of(f"cell-{row.key}", names[row.key], cells[row.key], verdict, shared, found, numbers) for row, verdict in shown
    ]


def _provenance(document: SweepDocument) -> list[tuple[str, str]]:
    sweep = document.sweep
    record = {"plan": sweep.plan, "sha256 of the plan": sweep.plan_sha256, "machine": sweep.fingerprint, "command": sweep.command}
    return [*facts(record), *(("left out", plain(note)) for note in sweep.notes)]
