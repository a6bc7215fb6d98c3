"""A deployment as a page, or as a table for other programs."""

import json
from collections.abc import Iterator
from typing import Any

from emca_deploy.reporting.exchange import as_csv, as_markdown
from emca_deploy.reporting.html import render_html
from emca_deploy.reporting.table import deploy_columns
from emca_deploy.results.codec import to_json
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.figures import figures_of
from emca_deploy.results.recommendation import recommend

__all__ = ["deployment_in"]


def deployment_in(form: str, report: DeployReport) -> str:
    """Return a deployment as "html", "csv", "markdown" or "json".

    Raises:
        MissingError: Jinja2 is not installed, for "html".
    """
    if form == "html":
        return render_html(report)
    if form == "csv":
        return as_csv(_values(report))
    if form == "markdown":
        use = recommend(report).use
        chosen = [index for index, each in enumerate(report.candidates) if each.name == use]
        return as_markdown(deploy_columns(report), chosen)
    return json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"


def _values(report: DeployReport) -> Iterator[dict[str, Any]]:
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
