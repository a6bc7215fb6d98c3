"""Sends a request to a remote machine, has its agent run it, and takes the report, over several connections if need be."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError
from emca_deploy.remote.address import Address
from emca_deploy.remote.errors import ConnectionLostError
from emca_deploy.remote.protocol import COLLECT, RECONNECT_AFTER_S
from emca_deploy.remote.session import Answer, Session, session
from emca_deploy.requests import DeploymentRequest, LogitsRequest, ProfileRequest, Request
from emca_deploy.results.codec import to_json
from emca_deploy.targets.shipment import Shipment

__all__ = ["Errand"]

T = TypeVar("T")


@dataclass
class Errand:
    """A request that is run on a remote machine.

    Attributes:
        name: Name of the request, as the agent knows it.
        request: The request, with remote file names.
        files: Files that the request needs.
        collecting: Whether the agent must only return what an earlier attempt has left.
    """

    address: Address
    name: str
    request: Request | DeploymentRequest
    files: Shipment
    collecting: bool = False
    _run: str = field(default_factory=lambda: secrets.token_hex(8))

    def run(self, first: Session, take: Callable[[Answer], T], progress: Progress | None) -> T:
        """Have the request run, and return the result of `take`. If the first session is lost, others are opened.

        Raises:
            EmcaError: the agent's error.
            KeyboardInterrupt: interrupted before there was anything to keep.
            ConnectionLostError: the connection was lost, and cannot be made again or was lost before there was anything to keep.
        """
        lost: ConnectionLostError | None = None
        for pause_s in (0.0, *RECONNECT_AFTER_S):
            time.sleep(pause_s)
            try:
                with nullcontext(first) if lost is None else session(self.address) as remote:
                    return self._ask(remote, take, progress)
            except _NothingKeptError:
                raise ConnectionLostError.to(self.address, ", before the request was done") from lost
            except ConnectionLostError as exc:
                lost = exc
                # A validation resumes; all else has been kept whole.
                self.collecting = not isinstance(self.request, LogitsRequest)
            except EmcaError:
                if not self.collecting:
                    raise
        assert lost is not None  # nothing else ends the loop
        raise lost

    def _ask(self, remote: Session, take: Callable[[Answer], T], progress: Progress | None) -> T:
        request = self.request
        if isinstance(request, LogitsRequest):  # the machine keeps logits under a name that the same request has again
            content = {name: blob.digest for name, blob in self.files.blobs.items()}
            key = hashlib.sha256(json.dumps([to_json(request), content], sort_keys=True).encode()).hexdigest()
            request = replace(request, logits=f"{remote.facts.root}/logits/{key}.npz")
        message = {"do": COLLECT} if self.collecting else {"do": self.name, "request": to_json(request)}
        blobs = {} if self.collecting else self.files.blobs
        with remote.ask({**message, "run": self._run}, blobs, progress) as answer:
            if not answer.document:
                raise _NothingKeptError
            if answer.stopped and not isinstance(request, ProfileRequest):  # only latency is worth reporting in part
                raise KeyboardInterrupt
            return take(answer)


class _NothingKeptError(Exception):
    """The agent had nothing to keep when the connection was lost."""
