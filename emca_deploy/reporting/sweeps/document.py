"""A sweep as a page, or as a table for other programs."""

import json
from collections.abc import Mapping

from emca_deploy.reporting.ci import markdown_text
from emca_deploy.reporting.details.found import Found
from emca_deploy.reporting.exchange import as_csv, as_markdown
from emca_deploy.reporting.sweeps.names import names_of
from emca_deploy.reporting.sweeps.page import render_sweep
from emca_deploy.reporting.sweeps.table import cells_of, columns_of, values_of
from emca_deploy.reporting.sweeps.words import cautions_of, place_of, sentence_of
from emca_deploy.results.codec import to_json
from emca_deploy.results.sweep import CellResult
from emca_deploy.results.sweep_choice import SweepDocument

__all__ = ["sweep_in"]


def sweep_in(form: str, document: SweepDocument, cells: Mapping[str, CellResult], found: Found | None = None) -> str:
    """Return a sweep as "html", "csv", "markdown" or "json"; `found` is what else its folder has.

    Raises:
        MissingError: Jinja2 is not installed, for "html".
    """
    names = names_of(document.sweep.cells)
    if form == "html":
        return render_sweep(document, cells, found)
    if form == "csv":
        return as_csv(values_of(document, names))
    if form == "markdown":
        return _markdown(document, names)
    return json.dumps(to_json(document), indent=1, allow_nan=False) + "\n"


def _markdown(document: SweepDocument, names: Mapping[str, str]) -> str:
    lines = []
    for group in document.groups:
        lines += [f"**{markdown_text(place_of(group))}**: {markdown_text(sentence_of(document, group, names))}", ""]
        lines += [f"- {markdown_text(each)}" for each in cautions_of(document, group, names)]
        lines.append("")
    chosen = [index for index, (_, verdict) in enumerate(cells_of(document)) if verdict.outcome == "best"]
    return "\n".join(lines) + "\n" + as_markdown(columns_of(document, names), chosen)
