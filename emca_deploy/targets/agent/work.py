"""Runs the agent's request on a target of this machine, as the commands do, and packs the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emca_deploy.remote.protocol import ENGINE, LOGITS, RAW
from emca_deploy.requests import BuildRequest, DeploymentRequest, LogitsRequest, ProfileRequest
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.targets.agent.run_folder import LEFT, Run
from emca_deploy.targets.base import Built, Profiled, Report
from emca_deploy.targets.registry import parse

__all__ = ["REQUESTS", "Say", "collect", "serve"]

Say = Callable[..., None]
"""Sends a message, with its kind and values, to the machine that sent the request."""

REQUESTS: dict[str, type[ProfileRequest] | type[LogitsRequest] | type[BuildRequest] | type[DeploymentRequest]] = {
    "profile": ProfileRequest,
    "validate": LogitsRequest,
    "build": BuildRequest,
    "deployment": DeploymentRequest,
}
"""The requests by name."""


def serve(name: str, document: dict[str, Any], run: Run, say: Say) -> dict[str, Any]:
    """Run a request on this machine; return its report as JSON, with large parts in files of the run.

    Raises:
        EmcaError: the request is wrong, or it failed.
    """
    request = from_json(REQUESTS[name], document)
    if isinstance(request, LogitsRequest) and request.logits is not None:
        logits = Path(request.logits)
        logits.parent.mkdir(mode=0o700, exist_ok=True)
        run.until_fetched.append(logits)
    target = parse(request.target)
    if isinstance(request, DeploymentRequest):
        return {"report": to_json(target.deployment(request.backends))}
    for note in target.notes(request):
        say("note", text=note)
    report: Report = target.run(request, lambda done, total: say("progress", done=done, total=total))
    for warning in () if isinstance(report, Profiled) else report.warnings:
        say("note", text=warning)
    return {**_packed(request, report, run), "target": target.name}


def collect(run: Run) -> dict[str, Any]:
    """Return what a run kept when its connection was lost; empty if nothing."""
    left = run.folder / LEFT
    if not left.is_file():
        return {}
    kept = json.loads(left.read_text(encoding="utf-8"))
    run.made.update({name: Path(entry["path"]) for name, entry in kept["files"].items()})
    document: dict[str, Any] = kept["document"]
    return document


def _packed(request: ProfileRequest | LogitsRequest | BuildRequest, report: Report, run: Run) -> dict[str, Any]:
    if isinstance(report, Profiled):
        from emca_deploy.harness.measure.raw_samples import write_raw

        run.made[RAW] = run.folder / RAW
        write_raw(run.made[RAW], report.samples)
        return {"report": to_json(report.report)}
    if isinstance(report, Built):
        assert isinstance(request, BuildRequest)
        run.made[ENGINE] = run.folder / request.output
        return {"report": to_json(report.manifest)}
    import numpy as np

    assert isinstance(request, LogitsRequest)
    assert request.logits is not None  # the sender names the file
    run.made[LOGITS] = Path(request.logits)
    with np.load(request.logits, allow_pickle=False) as arrays:
        key = json.loads(str(arrays["key"]))
    return {"key": key, "images_per_s": report.logits.images_per_s, "reused": report.logits.reused}
