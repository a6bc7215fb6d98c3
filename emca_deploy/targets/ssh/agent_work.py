"""What the agent does: the same calls that the commands make on their own machine."""

from collections.abc import Callable
from typing import Any

from emca_deploy.targets.ssh.agent_run import LEFT, Run

__all__ = ["WORK", "Say"]

Say = Callable[..., None]
"""Sends a message home: its kind, and what is in it."""

RAW = "raw.npz"


def _target(asked: str | None) -> str:
    """Return the target on this machine."""
    from emca_deploy.targets.jetson.facts import detect

    return asked or ("jetson" if detect() is not None else "cpu")


def profile(request: dict[str, Any], run: Run, say: Say) -> dict[str, Any]:
    """Measure, and return the report; all samples are in a file beside it."""
    from emca_deploy.harness.raw_samples import write_raw
    from emca_deploy.targets.profiling import ProfileRequest, profile_notes, run_profile

    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in request["options"].items()
    }
    asked = ProfileRequest(**{**options, "target": _target(request["there"])})
    for note in profile_notes(asked):
        say("note", text=note)
    report, raw = run_profile(asked, lambda done, total: say("progress", done=done, total=total))
    write_raw(run.folder / RAW, raw)
    run.made.append(RAW)
    return {**report.to_dict(), "there": asked.target}


def collect(request: dict[str, Any], run: Run, say: Say) -> dict[str, Any]:
    """Return what a run left whose line went down; empty where it left nothing."""
    import json

    left = run.folder / LEFT
    if not left.is_file():
        return {}
    kept = json.loads(left.read_text(encoding="utf-8"))
    run.made += list(kept["files"])
    document: dict[str, Any] = kept["document"]
    return document


WORK: dict[str, Callable[[dict[str, Any], Run, Say], dict[str, Any]]] = {"profile": profile, "collect": collect}
