"""`build` on another machine: the model goes there, the engine comes home."""

import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.artifacts import Manifest, this_command, write_manifest
from emca_deploy.errors import EmcaError
from emca_deploy.targets.building import BuildRequest
from emca_deploy.targets.ssh.address import parse_destination
from emca_deploy.targets.ssh.belongings import Belongings
from emca_deploy.targets.ssh.checks import check_backends
from emca_deploy.targets.ssh.complaints import LineLostError
from emca_deploy.targets.ssh.session import session
from emca_deploy.targets.ssh.transfer import Blob

__all__ = ["build_there"]

CACHE = "@cache/calibration.cache"


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
    request.builder()  # its choices are refused before anything is sent
    files = Belongings()
    choices: dict[str, Any] = {name: str(value) if isinstance(value, Path) else value for name, value in request.choices.items()}
    if choices.get("calibration_cache"):
        files.blobs[CACHE] = Blob.of_file(Path(choices["calibration_cache"]))
        files.names[CACHE] = choices["calibration_cache"]
        choices["calibration_cache"] = CACHE
    asked = replace(request, model=files.add(request.model), choices=choices)
    backends = [] if request.trtexec else [request.backend]
    work = {"do": "build", "run": secrets.token_hex(8), "there": destination.there, "power_mode": power_mode}
    try:
        with session(destination, lambda facts: check_backends(destination, facts, backends, [])) as there:
            sent = there.give(files.blobs, progress)
            with there.ask({**work, "options": asdict(asked), "files": sent}, progress) as working:
                if working.answer.stopped:
                    raise KeyboardInterrupt
                manifest = Manifest.from_dict(files.ours(working.answer.document["manifest"]))
                working.fetch("engine", output)
                details = {**manifest.details, "built_on": str(destination)}
                written = write_manifest(output, replace(manifest, command=this_command(), details=details))
                return written, tuple(files.ours(list(working.answer.notes)))
    except LineLostError:
        raise
    except EmcaError as error:
        raise type(error)(files.ours(error.problem), files.ours(error.remedy)) from error
