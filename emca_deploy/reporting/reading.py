"""Read a result.json whose every value has been checked, so that drawing it cannot fail halfway."""

from pathlib import Path

from emca_deploy.errors import InputError
from emca_deploy.results.codec import misfit
from emca_deploy.results.deploy import DeployReport, read_deploy_report

__all__ = ["RESULT_NAME", "read_result"]

RESULT_NAME = "result.json"


def read_result(place: Path) -> DeployReport:
    """Return the report of a finished deployment.

    Args:
        place: the folder that `deploy` or `demo` made, or the result.json in it.

    Raises:
        InputError: there is none, or it is not ours, damaged, or of another schema version.
    """
    if not place.exists():
        raise InputError(f"{place}: no such folder", "name the folder that `deploy -o` or `demo -o` made")
    path = place / RESULT_NAME if place.is_dir() else place
    if not path.exists():
        raise InputError(f"{place}: has no {RESULT_NAME}", "name the folder of a finished `deploy` or `demo`")
    try:
        report = read_deploy_report(path)
        wrong = misfit(report, DeployReport) or _contradiction(report)
    except (AttributeError, RecursionError, UnicodeDecodeError) as exc:
        wrong = str(exc)
    if wrong:
        raise InputError(f"{path}: not a result of ours, or damaged: {wrong}", "run `deploy` or `demo` again")
    return report


def _contradiction(report: DeployReport) -> str:
    if not report.candidates:
        return "it has no candidates"
    if report.baseline not in (candidate.name for candidate in report.candidates):
        return "its baseline is not among its candidates"
    for candidate in report.candidates:
        summary = candidate.latency.latency_ms
        if min(summary.min, summary.p50, candidate.speedup, candidate.file_mib, *candidate.latency.samples_ms, 1.0) < 0:
            return f"'{candidate.name}' has a negative latency, speed-up or size"
    return ""
