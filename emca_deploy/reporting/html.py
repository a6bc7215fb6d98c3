"""The report as one page that needs nothing else: no script, no request, light and dark."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy._version import __version__
from emca_deploy.reporting.formats import NONE, facts, fixed, moment, plain
from emca_deploy.reporting.notices import warnings_of
from emca_deploy.reporting.plots import latency_plot, tradeoff_plot
from emca_deploy.reporting.recommendation import cautions_of, sentence_of
from emca_deploy.reporting.svg import COLOURS
from emca_deploy.reporting.table import deploy_columns
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.recommendation import recommend

__all__ = ["render_html"]

_TERMS = {
    "data": "images from",
    "samples": "images",
    "seconds": "took seconds",
    "max_abs": "largest difference of a logit",
    "max_rel": "relative to the largest logit",
    "cosine": "smallest cosine similarity",
}
_TEMPLATE = Path(__file__).with_name("report.html")


def render_html(report: DeployReport) -> str:
    """Return the page of a deployment.

    Everything in the report is text to the page: it is escaped, whatever it contains.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    jinja2 = import_optional("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_plain, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return str(template.render(_context(report)))


def _plain(value: Any) -> Any:
    return plain(value) if type(value) is str else value  # Markup is our own SVG, already so


def _context(report: DeployReport) -> dict[str, Any]:
    found = recommend(report)
    columns = [column for column in deploy_columns(report) if any(cell != NONE for cell in column.cells)]
    first = report.candidates[0]
    return {
        "report": report,
        "verdict": {"level": found.level, "sentence": sentence_of(report, found), "cautions": cautions_of(found)},
        "columns": columns,
        "colours": COLOURS,
        "stable": [candidate.latency.stable for candidate in report.candidates],
        "chosen": [candidate.name == found.use for candidate in report.candidates],
        "warnings": [*(("", warning) for warning in report.warnings), *warnings_of(report)],
        "latency_plot": latency_plot(report),
        "tradeoff_plot": tradeoff_plot(report),
        "created": moment(report.created),
        "protocol": _protocol(report),
        "files": [(c.name, f"{c.latency.artifact} ({fixed(c.file_mib)} MiB)") for c in report.candidates],
        "sections": [(title, facts(values)) for title, values in _sections(report)],
        "images": first.accuracy.samples,
        "version": __version__,
    }


def _sections(report: DeployReport) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("Calibration", _renamed(report.calibration)),
        ("Parity of the export with PyTorch", _renamed(report.parity)),
        ("Machine and versions", report.environment),
    ]


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_TERMS.get(key, key): value for key, value in values.items()}


def _protocol(report: DeployReport) -> str:
    first = report.candidates[0].latency
    calls = sum(candidate.latency.samples for candidate in report.candidates)
    cpu = report.environment.get("cpu")
    place = f" on {cpu['model']}" if isinstance(cpu, Mapping) and isinstance(cpu.get("model"), str) else ""
    return f"{calls:,} calls measured{place} ({first.target}, {first.scenario}, batch {first.batch})"
