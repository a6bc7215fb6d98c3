"""`report`: make the page or the table of a finished deployment or sweep."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from emca_deploy.api.report_details import find_details, sweep_pictures
from emca_deploy.api.sweeping.folder import INDEX, SweepFolder
from emca_deploy.artifacts import write_text
from emca_deploy.errors import InputError
from emca_deploy.reporting.deployments import deployment_in
from emca_deploy.reporting.sweeps.document import sweep_in
from emca_deploy.requirements.sweeps import changes_of, choose
from emca_deploy.results.deploy import DeployReport, read_deploy_report
from emca_deploy.results.deployment_cells import deployment_cells, deployment_document
from emca_deploy.results.requirements import Requirement, parse_requirements
from emca_deploy.results.sweep import CellResult, SweepReport
from emca_deploy.results.sweep_choice import CellChange, SweepDocument

__all__ = ["Format", "deployment_page", "page_in", "report", "report_text"]

Format = Literal["html", "csv", "markdown", "json"]


def page_in(folder: Path) -> Path:
    """Return the default page of a deployment or sweep; `folder` may also be its result.json or sweep.json."""
    return (folder if folder.is_dir() else folder.parent) / "report.html"


def report(folder: Path | str, page: Path | str | None = None, require: Sequence[str] = ()) -> DeployReport | SweepDocument:
    """Read a deployment or a sweep, and write its page again.

    Args:
        folder: folder of the deployment or sweep, or its result.json or sweep.json.
        page: HTML file to write; None is report.html in the folder.
        require: requirements on the candidates or cells, such as "drop<=0.2, p99<=8ms".

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

    `against` is another deployment or sweep to compare with.

    Raises:
        InputError: the result does not exist or cannot be read, or a requirement is wrong.
        MissingError: Jinja2 is not installed.
        OutputError: the file cannot be written.
    """
    place, requirements = Path(folder), parse_requirements(require) if require else ()
    found, text = (
        _swept(place, requirements, form, against) if _is_sweep(place) else _deployed(place, requirements, form, against)
    )
    if output is not None:
        write_text(output, text)
    return found, text


def deployment_page(report: DeployReport, place: Path) -> str:
    """Return the page of a deployment in a folder.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    return deployment_in("html", report, find_details(place, deployment_cells(report)))


def _deployed(
    place: Path, requirements: Sequence[Requirement], form: Format, against: Path | None
) -> tuple[DeployReport, str]:  # fmt: skip
    report = read_deploy_report(place)
    cells = deployment_cells(report)
    if requirements:
        document = choose(deployment_document(report).sweep, cells, requirements, report.baseline)
        report = replace(report, requirements=document.requirements, groups=document.groups)
    if against is not None:
        if _is_sweep(against):
            raise InputError(f"--against {against}: is a sweep", "name the folder of another deployment")
        changes = _changes(place, cells, against, deployment_cells(read_deploy_report(against)))
        report = replace(report, against=str(against), changes=changes)
    if form == "html":
        return report, deployment_page(report, _folder(place))
    return report, deployment_in(form, report)


def _swept(
    place: Path, requirements: Sequence[Requirement], form: Format, against: Path | None
) -> tuple[SweepDocument, str]:  # fmt: skip
    sweep, cells = _results(place)
    document = choose(sweep, cells, requirements)
    if against is not None:
        if not _is_sweep(against):
            raise InputError(f"--against {against}: is not a sweep", "name the folder of another sweep")
        document = replace(document, against=str(against), changes=_changes(place, cells, against, _results(against)[1]))
    if form != "html":
        return document, sweep_in(form, document, cells)
    details = find_details(_folder(place), cells)
    return document, sweep_in(form, document, cells, replace(details, pictures=sweep_pictures(sweep, cells)))


def _changes(
    place: Path, cells: dict[str, CellResult], against: Path, others: dict[str, CellResult]
) -> tuple[CellChange, ...]:  # fmt: skip
    changes = changes_of(cells, others)
    if not changes:
        raise InputError(f"{place} and {against} have nothing measured in common", "compare runs of the same plan or checkpoint")
    return changes


def _is_sweep(place: Path) -> bool:
    index = place / INDEX if place.is_dir() else place
    return index.name == INDEX and index.is_file()


def _folder(place: Path) -> Path:
    return place if place.is_dir() else place.parent


def _results(place: Path) -> tuple[SweepReport, dict[str, CellResult]]:
    return SweepFolder(_folder(place)).results()
