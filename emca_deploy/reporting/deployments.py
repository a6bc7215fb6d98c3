"""A deployment as a page, or as a table for other programs."""

import json

from emca_deploy.reporting.ci import markdown_text
from emca_deploy.reporting.details.found import Found
from emca_deploy.reporting.exchange import as_csv, as_markdown
from emca_deploy.reporting.html import render_html
from emca_deploy.reporting.recommendation import choices_of
from emca_deploy.reporting.table import deploy_columns, deploy_values
from emca_deploy.results.codec import to_json
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.recommendation import chosen_names

__all__ = ["deployment_in"]


def deployment_in(form: str, report: DeployReport, found: Found | None = None) -> str:
    """Return a deployment as "html", "csv", "markdown" or "json"; `found` is what else its folder has.

    Raises:
        MissingError: Jinja2 is not installed, for "html".
    """
    if form == "html":
        return render_html(report, found)
    if form == "csv":
        return as_csv(deploy_values(report))
    if form == "markdown":
        return _markdown(report)
    return json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"


def _markdown(report: DeployReport) -> str:
    """Return the choice under the requirements, if there are any, and the table."""
    lines = []
    for choice in choices_of(report) if report.requirements else ():
        lines += [f"**{markdown_text(choice.place)}**: {markdown_text(choice.sentence)}", ""]
        lines += [f"- {markdown_text(each.name)} {each.outcome}: {markdown_text(each.reason)}" for each in choice.lost]
        lines.append("")
    use = chosen_names(report)
    table = as_markdown(deploy_columns(report), [index for index, each in enumerate(report.candidates) if each.name in use])
    return "\n".join([*lines, table])
