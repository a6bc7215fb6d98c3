"""`profile`: latency and throughput of artifacts, interleaved and compared."""

import os
from dataclasses import replace
from pathlib import Path

from emca_deploy._progress import Progress
from emca_deploy.harness.measure.raw_samples import save_raw
from emca_deploy.requests import ProfileRequest
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.base import Profiled
from emca_deploy.targets.named_machines import ready

__all__ = ["name_samples", "profile", "profile_notes", "profile_samples", "write_samples"]


def profile(request: ProfileRequest, progress: Progress | None = None) -> ProfileReport:
    """Measure latency and throughput of artifacts, and compare each with the first.

    Short blocks of all candidates alternate in random order: heat, clocks and other processes then affect all of them equally.

    Returns:
        The report, with failed candidates in `failures`. After an interrupt it has what was measured so far.

    Raises:
        InputError: an artifact, the target or an option is wrong.
        MissingError: a backend or device is missing.
        WorkerError: no candidate could be measured.
    """
    return profile_samples(request, progress).report


def profile_samples(request: ProfileRequest, progress: Progress | None = None) -> Profiled:
    """Return the report of `profile`, and every sample."""
    target, request = ready(request)
    return target.profile(request, progress)


def profile_notes(request: ProfileRequest) -> tuple[str, ...]:
    """Return notes on a run, such as which artifacts run with tuned settings.

    Raises:
        EmcaError: an artifact, the target or an option is wrong.
    """
    target, request = ready(request)
    return target.notes(request)


def write_samples(profiled: Profiled, path: Path) -> None:
    """Write every sample to an .npz file.

    Raises:
        OutputError: the file cannot be written.
    """
    save_raw(path, profiled.samples)


def name_samples(profiled: Profiled, raw: Path, document: Path | None, *, only_there: bool) -> Profiled:
    """Return the profile, whose report names the file of its samples.

    Args:
        profiled: the profile.
        raw: the .npz file.
        document: JSON file of the report, to which the path of `raw` is relative; None takes `raw` as it is.
        only_there: whether to leave the samples out of the report.
    """
    place = str(raw) if document is None else os.path.relpath(raw, document.parent)
    results = profiled.report.results
    if only_there:
        results = tuple(replace(result, samples_ms=()) for result in results)
    return profiled._replace(report=replace(profiled.report, raw_samples=place, results=results))
