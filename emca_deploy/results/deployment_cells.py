"""A deployment as a sweep: each candidate is a cell, whose key is its name."""

from dataclasses import replace

from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.requirements import CONFIDENCE
from emca_deploy.results.sweep import CellResult, SweepCell, SweepReport, row_of, with_front
from emca_deploy.results.sweep_choice import SweepDocument

__all__ = ["deployment_cells", "deployment_document"]


def deployment_cells(report: DeployReport) -> dict[str, CellResult]:
    """Return the result of each candidate by its name."""
    return {each.name: _cell(each, report) for each in report.candidates}


def _cell(candidate: DeployCandidate, report: DeployReport) -> CellResult:
    latency = candidate.latency
    cell = SweepCell(
        candidate.name, None, latency.precision, latency.backend, latency.target, latency.scenario, latency.batch, None
    )
    return CellResult(
        key=candidate.name,
        cell=cell,
        inputs={},
        status="done",
        created=report.created,
        seconds=0.0,
        artifact=latency.artifact,
        file_mib=candidate.file_mib,
        latency=latency,
        accuracy=candidate.accuracy,
        environment=report.environment,
    )


def deployment_document(report: DeployReport) -> SweepDocument:
    """Return the index of the candidates with the choice among them, where one was made."""
    rows = tuple(replace(row_of(cell), name=name) for name, cell in deployment_cells(report).items())
    machine = str(report.environment.get("fingerprint") or "")
    index = SweepReport(report.title, "", with_front(rows), machine, report.command, report.created, complete=True)
    return SweepDocument(report.requirements, 100 * CONFIDENCE, report.groups, index, report.against, report.changes)
