"""`profile` on another machine: the request goes there, the report comes home."""

import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError
from emca_deploy.harness.measure.raw_samples import RawSamples, read_raw
from emca_deploy.remote.address import Destination, parse_destination
from emca_deploy.remote.errors import LineLostError
from emca_deploy.remote.probe import Facts
from emca_deploy.remote.session import Session, Working, session
from emca_deploy.results.codec import from_json
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.candidates import split_artifact
from emca_deploy.targets.named_artifacts import split_builds
from emca_deploy.targets.requirements import check_backends, needed_backend, trtexec_will_do
from emca_deploy.targets.shipment import Belongings
from emca_deploy.targets.trtexec_profiling import profile_by_trtexec

if TYPE_CHECKING:
    from emca_deploy.targets.profiling import ProfileRequest

__all__ = ["profile_there"]

RECONNECT_AFTER_S = (1.0, 4.0, 10.0)


def profile_there(request: "ProfileRequest", progress: Progress | None = None) -> tuple[ProfileReport, RawSamples]:
    """Measure on another machine, and return the report with all raw samples; file names are those of this machine.

    A machine without a Python of use measures with its trtexec, if it has one.

    Where the line goes down the far side ends its run; what it had measured is fetched once the line is up again, and is marked
    incomplete.

    Raises:
        EmcaError: an artifact or option is wrong, the machine cannot be used, or nothing could be measured.
        LineLostError: the connection was lost, and is still down.
        KeyboardInterrupt: interrupted before there was anything to keep.
    """
    destination = parse_destination(request.target)
    files = Belongings()
    artifacts = files.add_all(request.artifacts)
    options = {**asdict(request), "artifacts": artifacts}
    run = secrets.token_hex(8)
    try:
        with session(destination, lambda facts: _check(destination, facts, request, files)) as there:
            work = {"do": "profile", "run": run, "there": destination.there, "options": options}
            with there.ask({**work, "files": there.give(files.blobs, progress)}, progress) as working:
                return _home(working, files)
    except _TrtexecOnlyError as found:
        return profile_by_trtexec(destination, found.facts, request, progress)
    except LineLostError as lost:
        return _left(destination, files, run, lost)
    except EmcaError as error:
        raise type(error)(files.ours(error.problem), files.ours(error.remedy)) from error


class _TrtexecOnlyError(Exception):
    """The machine has a trtexec, and no Python of use."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts = facts


def _check(destination: Destination, facts: Facts, request: "ProfileRequest", files: Belongings) -> None:
    """Refuse a machine that lacks what is asked for, before anything is sent."""
    backends: set[str | None] = set()
    for text in split_builds(request.artifacts).artifacts:
        own, path = split_artifact(text)
        choices: Sequence[str | None] = [own] if own else request.backends or [None]
        backends |= {needed_backend(Path(path), asked) for asked in choices}
    builds = any(name.lower().endswith(".onnx") for name in files.names)
    if trtexec_will_do(facts, backends, builds=builds):
        raise _TrtexecOnlyError(facts)
    check_backends(destination, facts, backends, builds=builds)


def _home(working: Working, files: Belongings) -> tuple[ProfileReport, RawSamples]:
    """Fetch what belongs to a finished run."""
    with tempfile.TemporaryDirectory(prefix="emca-") as folder:
        place = Path(folder) / "raw.npz"
        working.fetch("raw.npz", place)
        raw = read_raw(place)
    document: dict[str, Any] = dict(working.answer.document)
    there = document.pop("there")
    del document["files"]
    report = from_json(ProfileReport, files.ours(document))
    record = {**working.session.record(), "target_there": there, "notes": _notes(working, files)}
    record["log"] = files.ours(list(working.answer.log))
    target = str(working.session.connection.destination)
    return (
        replace(
            report,
            results=tuple(replace(result, target=target) for result in report.results),
            environment={**report.environment, "ssh": record},
        ),
        replace(
            raw,
            candidates=tuple(
                replace(one, name=files.ours(one.name), builds=tuple(files.ours(one.builds))) for one in raw.candidates
            ),
        ),
    )


def _notes(working: Working, files: Belongings) -> list[str]:
    notes = [files.ours(note) for note in working.answer.notes]
    offset_s = working.session.facts.clock_offset_s
    if working.session.facts.clock_is_off:
        notes.append(
            f"its clock is {abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's: see 'created'"
        )
    return notes


def _left(destination: Destination, files: Belongings, run: str, lost: LineLostError) -> tuple[ProfileReport, RawSamples]:
    """Fetch what was measured until the line went down."""
    for pause_s in RECONNECT_AFTER_S:
        time.sleep(pause_s)
        try:
            with session(destination) as there:
                found = _collected(there, files, run)
        except EmcaError:
            continue
        if found is not None:
            return found
        raise LineLostError(f"{lost.problem}, before anything was measured", lost.remedy) from lost
    raise lost


def _collected(there: Session, files: Belongings, run: str) -> tuple[ProfileReport, RawSamples] | None:
    there.give({})
    with there.ask({"do": "collect", "run": run, "files": {}}) as working:
        if "results" not in working.answer.document:
            return None
        report, raw = _home(working, files)
    record = report.environment["ssh"]
    record["notes"].append("the connection was lost: this is what was measured until then")
    return replace(report, complete=False), raw
