"""How a measurement ended, on stderr."""

from typing import TYPE_CHECKING

from emca_deploy.commands._console import echo, tell

if TYPE_CHECKING:
    from emca_deploy.results.latency import ProfileReport

__all__ = ["INTERRUPTED", "exit_code", "tell_outcome"]

INTERRUPTED = 130
"""The exit code of an interrupted run, whether it kept results or not."""


def tell_outcome(report: "ProfileReport") -> None:
    """Print what failed, whether the run was interrupted, notes, and each warning once with the artifacts it is about."""
    for failure in report.failures:
        echo(f"error: {' '.join(failure.error.split())}\n  try: {' '.join(failure.remedy.split())}", err=True)
    if not report.complete and not report.failures:
        echo("interrupted: the measurements so far are kept, and marked incomplete", err=True)
    tell(notes=report.environment.get("ssh", {}).get("notes", ()))
    tell(notes=(note for result in report.results for note in result.telemetry.notes))
    about: dict[str, list[str]] = {}
    for result in report.results:
        for warning in result.warnings:
            shared = sum(other.artifact == result.artifact for other in report.results) > 1
            about.setdefault(warning, []).append(f"{result.backend}={result.artifact}" if shared else result.artifact)
    for warning, artifacts in about.items():
        names = "" if len(artifacts) == len(report.results) else f"{', '.join(artifacts)}: "
        tell(warnings=[names + warning])


def exit_code(report: "ProfileReport") -> int:
    """Return the exit code of the first candidate that failed, 130 for an interrupted run, else 0."""
    if report.failures:
        return int(report.failures[0].exit_code)
    return 0 if report.complete else INTERRUPTED
