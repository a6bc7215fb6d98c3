"""`build` on another machine: the model goes there, the engine comes home."""

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.artifacts import Manifest, this_command, write_artifact
from emca_deploy.errors import EmcaError, MissingError
from emca_deploy.remote.address import Destination, parse_destination
from emca_deploy.remote.errors import LineLostError
from emca_deploy.remote.files import Arriving, Blob
from emca_deploy.remote.probe import Facts
from emca_deploy.remote.session import Working, session
from emca_deploy.results.codec import from_json
from emca_deploy.targets.building import BuildRequest
from emca_deploy.targets.requirements import check_backends, trtexec_will_do
from emca_deploy.targets.shipment import Belongings
from emca_deploy.targets.trtexec_building import build_by_trtexec

__all__ = ["build_there"]

CACHE = "@cache/calibration.cache"
ENGINE = "engine"
RECONNECT_AFTER_S = (1.0, 4.0, 10.0)


def build_there(
    target: str, request: BuildRequest, power_mode: str | None, output: Path, progress: Progress | None = None
) -> tuple[Manifest, tuple[str, ...]]:
    """Build on another machine, for it; write the engine with its manifest here, and return that with notes for the user.

    Args:
        target: "ssh://...".
        request: what to build; a timing cache is a folder there, all other files lie here.
        power_mode: of a Jetson board.
        output: the engine's file here.
        progress: called with (done, in all).

    Raises:
        EmcaError: whatever the builder raises there, or the machine cannot be used.
        LineLostError: the connection was lost.
    """
    destination = parse_destination(target)
    with suppress(
        MissingError
    ):  # its choices are refused before anything is sent; what is missing here need not be missing there
        request.builder()
    files = Belongings()
    choices: dict[str, Any] = {name: str(value) if isinstance(value, Path) else value for name, value in request.choices.items()}
    if choices.get("calibration_cache"):
        files.blobs[CACHE] = Blob.of_file(Path(choices["calibration_cache"]))
        files.names[CACHE] = choices["calibration_cache"]
        choices["calibration_cache"] = CACHE
    asked = replace(request, model=files.add(request.model), choices=choices)
    if request.trtexec:  # which needs no Python there
        path = None if request.trtexec == "auto" else request.trtexec
        return build_by_trtexec(destination, path, request, power_mode, output, progress)
    work = {"do": "build", "run": secrets.token_hex(8), "there": destination.there, "power_mode": power_mode}
    try:
        with write_artifact(output) as draft:
            with draft.path.open("wb") as stream:
                once = _Once(destination, request, files, {**work, "options": asdict(asked)}, Arriving(stream.write))
                working = once.patiently(progress)
            manifest = from_json(Manifest, files.ours(working.answer.document["manifest"]))
            details = {**manifest.details, "built_on": str(destination), "log": files.ours(list(working.answer.log))}
            draft.manifest = replace(manifest, command=this_command(), details=details)
        return draft.written, tuple(files.ours(list(working.answer.notes)))
    except _TrtexecOnlyError as found:
        return build_by_trtexec(destination, found.path, request, power_mode, output, progress)
    except LineLostError:
        raise
    except EmcaError as error:
        raise type(error)(files.ours(error.problem), files.ours(error.remedy)) from error


@dataclass(frozen=True)
class _Once:
    """A build there, which is done once: where the line goes down behind it, the engine waits."""

    destination: Destination
    request: BuildRequest
    files: Belongings
    work: Mapping[str, Any]
    arriving: Arriving

    def patiently(self, progress: Progress | None) -> Working:
        """Build, and bring the engine home; go on where it was once the line is up again.

        Raises:
            LineLostError: it is still down, or went down before the engine was built.
        """
        try:
            return self._ask(self.work, self.files.blobs, progress)
        except LineLostError as exc:
            lost = exc
        for pause_s in RECONNECT_AFTER_S:
            time.sleep(pause_s)
            try:
                return self._ask({"do": "collect", "run": self.work["run"]}, {}, progress)
            except EmcaError:
                continue
            except _NothingLeftError:
                break
        raise lost

    def _ask(self, work: Mapping[str, Any], blobs: Mapping[str, Blob], progress: Progress | None) -> Working:
        with session(self.destination, lambda facts: _check(self.destination, facts, self.request)) as there:
            sent = there.give(blobs, progress)
            with there.ask({**work, "files": sent}, progress) as working:
                if working.answer.stopped:
                    raise KeyboardInterrupt
                if "manifest" not in working.answer.document:
                    raise _NothingLeftError
                working.go_on(ENGINE, self.arriving)
            return working


class _NothingLeftError(Exception):
    """The far side had not built it when the line went down."""


class _TrtexecOnlyError(Exception):
    """The machine has a trtexec, and no Python that builds with TensorRT."""

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self.path = path


def _check(destination: Destination, facts: Facts, request: BuildRequest) -> None:
    """Refuse a machine that lacks what is asked for, before anything is sent."""
    if request.backend == "tensorrt" and trtexec_will_do(facts, {request.backend}, builds=True):
        raise _TrtexecOnlyError(facts.trtexec)
    check_backends(destination, facts, [request.backend], builds=True)
