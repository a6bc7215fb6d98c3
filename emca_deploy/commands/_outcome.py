"""How a measurement ended, on stderr."""

from typing import TYPE_CHECKING

from emca_deploy.commands._console import echo, tell_notes

if TYPE_CHECKING:
    from emca_deploy.results.latency import ProfileReport

__all__ = ["INTERRUPTED", "exit_code", "tell_outcome"]

INTERRUPTED = 130
"""The exit code of an interrupted run, whatever it kept."""


def tell_outcome(report: "ProfileReport", *, warnings: bool) -> None:
    """Say on stderr what failed and whether it was interrupted, and each warning once, with the artifacts it is about."""
    for failure in report.failures:
        echo(f"error: {' '.join(failure.error.split())}\n  try: {' '.join(failure.remedy.split())}", err=True)
    if not report.complete and not report.failures:
        echo("interrupted: what was measured until then is kept, and marked incomplete", err=True)
    tell_notes(report.environment.get("ssh", {}).get("notes", ()))
    tell_notes(note for result in report.results for note in result.telemetry.notes)
    if not warnings:
        return
    about: dict[str, list[str]] = {}
    for result in report.results:
        for warning in result.warnings:
            shared = sum(other.artifact == result.artifact for other in report.results) > 1
            about.setdefault(warning, []).append(f"{result.backend}={result.artifact}" if shared else result.artifact)
    for warning, artifacts in about.items():
        names = "" if len(artifacts) == len(report.results) else f"{', '.join(artifacts)}: "
        echo(f"warning: {names}{warning}", err=True)


def exit_code(report: "ProfileReport") -> int:
    """Return the exit code: that of the first candidate that failed, or of an interrupted run."""
    if report.failures:
        return int(report.failures[0].exit_code)
    return 0 if report.complete else INTERRUPTED
