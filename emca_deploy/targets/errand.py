"""A request on its way: sent to another machine, run by its agent, and its report taken, over as many connections as it takes."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError
from emca_deploy.remote.address import Address
from emca_deploy.remote.errors import ConnectionLostError
from emca_deploy.remote.probe import Facts, check_runtime
from emca_deploy.remote.protocol import COLLECT, RECONNECT_AFTER_S
from emca_deploy.remote.session import Session, Working, session
from emca_deploy.requests import BuildRequest, DeploymentRequest, LogitsRequest, ProfileRequest, Request
from emca_deploy.results.codec import to_json
from emca_deploy.targets.requirements import check_backends, needed_backend
from emca_deploy.targets.shipment import Shipment

__all__ = ["Errand"]

T = TypeVar("T")


@dataclass
class Errand:
    """A request that is run on another machine, over as many connections as it takes.

    The request has the files' names on that machine. `needs_pillow` says whether images are decoded there, and `collecting`
    whether the agent is asked for what an earlier attempt has left.
    """

    address: Address
    name: str
    request: Request | DeploymentRequest
    files: Shipment
    needs_pillow: bool = False
    collecting: bool = False
    _run: str = field(default_factory=lambda: secrets.token_hex(8))

    def check(self, facts: Facts) -> None:
        """Refuse a machine that lacks what the request needs, before anything is sent.

        Raises:
            MissingError: a package is missing there.
        """
        assert not isinstance(self.request, ProfileRequest | DeploymentRequest)
        if isinstance(self.request, BuildRequest):
            check_backends(self.address, facts, [self.request.backend], builds=True)
            return
        name = self.request.artifact
        backend = needed_backend(Path(self.files.names[name]), self.request.backend)
        check_backends(self.address, facts, [backend], builds=name.endswith(".onnx"))
        if self.needs_pillow and facts.python is not None:
            check_runtime(self.address, facts, "PIL", "images that are to be preprocessed")

    def run(self, first: Session, take: Callable[[Working, "Errand"], T], progress: Progress | None) -> T:
        """Have the request run, and return what is taken of it.

        The first session may be lost; others are opened then.

        Raises:
            EmcaError: whatever the request raises there.
            ConnectionLostError: the connection was lost and cannot be made again, or was lost before there was anything to keep.
        """
        try:
            return self._ask(first, take, progress)
        except ConnectionLostError as exc:
            lost = exc
        self.collecting = not isinstance(self.request, LogitsRequest)  # logits go on where they were, all else is kept whole
        for pause_s in RECONNECT_AFTER_S:
            time.sleep(pause_s)
            try:
                with session(self.address) as again:
                    return self._ask(again, take, progress)
            except _NothingKeptError:
                raise ConnectionLostError(f"{lost.problem}, before it was done", lost.remedy) from lost
            except ConnectionLostError as exc:
                lost = exc
            except EmcaError:
                if not self.collecting:
                    raise
        raise lost

    def _ask(self, there: Session, take: Callable[[Working, "Errand"], T], progress: Progress | None) -> T:
        sent = there.give({} if self.collecting else self.files.blobs, progress)
        message = {"do": COLLECT} if self.collecting else {"do": self.name, "request": to_json(self._kept_request(there))}
        with there.ask({**message, "run": self._run, "files": sent}, progress) as working:
            if not set(working.answer.document) - {"files"}:
                raise _NothingKeptError
            return take(working, self)

    def _kept_request(self, there: Session) -> Request | DeploymentRequest:
        """Return the request; logits are kept there under a name that the same request has again."""
        if not isinstance(self.request, LogitsRequest):
            return self.request
        content = {name: blob.digest for name, blob in self.files.blobs.items()}
        key = hashlib.sha256(json.dumps([to_json(self.request), content], sort_keys=True).encode()).hexdigest()
        return replace(self.request, logits=f"{there.facts.root}/logits/{key}.npz")


class _NothingKeptError(Exception):
    """The agent had nothing to keep when the connection was lost."""
