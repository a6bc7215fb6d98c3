"""`tune`: the runtime settings that run an artifact fastest on this machine."""

from collections.abc import Callable
from pathlib import Path

from emca_deploy._progress import Progress
from emca_deploy.artifacts import manifest_path
from emca_deploy.requests import TuneRequest
from emca_deploy.results.tuning import TuneReport
from emca_deploy.targets.tuning import keep, run_tune

__all__ = ["keep_tuned", "tune"]


def tune(
    request: TuneRequest,
    *,
    save: bool = True,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> TuneReport:
    """Find the fastest settings of an artifact, and keep them in its manifest.

    Args:
        request: which artifact, and how long to search.
        save: whether the settings are kept; `profile` and `validate` then use them on this machine.
        tell: called with a line after each round.
        progress: called with (done, total).

    Raises:
        InputError: the artifact or an option is wrong, or the backend has no settings to tune.
        MissingError: the backend is not installed.
        OutputError: the manifest cannot be written.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    report = run_tune(request, tell or (lambda line: None), progress)
    return keep_tuned(report) if save else report


def keep_tuned(report: TuneReport) -> TuneReport:
    """Write the settings into the artifact's manifest, where it has one; not what an interrupt left unconfirmed.

    Returns:
        The report, which names the manifest if it was written.

    Raises:
        ModelError, OutputError: the manifest cannot be read or written.
    """
    return keep(report) if report.complete and manifest_path(Path(report.artifact)).is_file() else report
