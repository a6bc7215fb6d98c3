"""`report`: make the page of a finished deployment again."""

from pathlib import Path

from emca_deploy.artifacts import write_text
from emca_deploy.reporting.html import render_html
from emca_deploy.results.deploy import DeployReport, read_deploy_report

__all__ = ["page_in", "report"]


def page_in(folder: Path) -> Path:
    """Return the default page of a deployment; `folder` may also be its result.json."""
    return (folder if folder.is_dir() else folder.parent) / "report.html"


def report(folder: Path | str, page: Path | str | None = None) -> DeployReport:
    """Read the result.json of a deployment, and write its page again.

    Args:
        folder: folder of the deployment, or its result.json.
        page: HTML file to write; None is report.html in the folder.

    Raises:
        InputError: the result does not exist or cannot be read.
        MissingError: Jinja2 is not installed.
        OutputError: the page cannot be written.
    """
    found = read_deploy_report(Path(folder))
    write_text(page_in(Path(folder)) if page is None else Path(page), render_html(found))
    return found
