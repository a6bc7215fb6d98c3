"""`report`: make the page or the table of a finished deployment or sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from emca_deploy.api.sweeping.folder import INDEX, SweepFolder
from emca_deploy.artifacts import write_text
from emca_deploy.errors import InputError
from emca_deploy.reporting.deployments import deployment_in
from emca_deploy.reporting.sweeps.document import sweep_in
from emca_deploy.requirements.sweeps import changes_of, choose
from emca_deploy.results.deploy import DeployReport, read_deploy_report
from emca_deploy.results.requirements import parse_requirements
from emca_deploy.results.sweep import CellResult, SweepReport
from emca_deploy.results.sweep_choice import SweepDocument

__all__ = ["Format", "page_in", "report", "report_text"]

Format = Literal["html", "csv", "markdown", "json"]


def page_in(folder: Path) -> Path:
    """Return the default page of a deployment or sweep; `folder` may also be its result.json or sweep.json."""
    return (folder if folder.is_dir() else folder.parent) / "report.html"


def report(folder: Path | str, page: Path | str | None = None, require: Sequence[str] = ()) -> DeployReport | SweepDocument:
    """Read a deployment or a sweep, and write its page again.

    Args:
        folder: folder of the deployment or sweep, or its result.json or sweep.json.
        page: HTML file to write; None is report.html in the folder.
        require: requirements on the cells of a sweep, such as "drop<=0.2, p99<=8ms".

    Raises:
        InputError: the result does not exist or cannot be read, or a requirement is wrong.
        MissingError: Jinja2 is not installed.
        OutputError: the page cannot be written.
    """
    found, text = report_text(folder, require)
    write_text(page_in(Path(folder)) if page is None else Path(page), text)
    return found


def report_text(
    folder: Path | str,
    require: Sequence[str] = (),
    form: Format = "html",
    output: Path | None = None,
    against: Path | None = None,
) -> tuple[DeployReport | SweepDocument, str]:
    """Return a deployment or a sweep, and its page or table as text, which is also written to `output`.

    `against` is the folder of another sweep to compare with.

    Raises:
        InputError: the result does not exist or cannot be read, or a requirement is wrong.
        MissingError: Jinja2 is not installed.
        OutputError: the file cannot be written.
    """
    found, cells = _read(Path(folder), require, against)
    text = deployment_in(form, found) if isinstance(found, DeployReport) else sweep_in(form, found, cells)
    if output is not None:
        write_text(output, text)
    return found, text


def _read(
    place: Path, require: Sequence[str], against: Path | None
) -> tuple[DeployReport | SweepDocument, Mapping[str, CellResult]]:
    """Return what a place holds: a sweep where it is, or has, a sweep.json, else a deployment, which has no cells."""
    if not _is_sweep(place):
        if require:
            raise InputError(f"--require: {place} is not a sweep", f"decide about a deployment with: emca-deploy gate {place}")
        if against is not None:
            raise InputError(f"--against: {place} is not a sweep", "compare deployments with: emca-deploy compare")
        return read_deploy_report(place), {}
    requirements = parse_requirements(require) if require else ()
    sweep, cells = _results(place)
    document = choose(sweep, cells, requirements)
    if against is None:
        return document, cells
    if not _is_sweep(against):
        raise InputError(f"--against {against}: is not a sweep", "name the folder of another sweep")
    changes = changes_of(cells, _results(against)[1])
    if not changes:
        raise InputError(f"{place} and {against} have no finished cell in common", "compare sweeps of the same plan")
    return replace(document, against=str(against), changes=changes), cells


def _is_sweep(place: Path) -> bool:
    index = place / INDEX if place.is_dir() else place
    return index.name == INDEX and index.is_file()


def _results(place: Path) -> tuple[SweepReport, dict[str, CellResult]]:
    return SweepFolder(place if place.is_dir() else place.parent).results()
