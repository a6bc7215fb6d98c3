"""What the agent does: the same calls that the commands make on their own machine."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy.errors import InputError
from emca_deploy.results.codec import to_json
from emca_deploy.targets.agent.run_folder import LEFT, Run, cache_root

if TYPE_CHECKING:
    from emca_deploy.harness.spec import RunnerSpec
    from emca_deploy.machines.jetson.session import BoardSession

__all__ = ["WORK", "Say"]

Say = Callable[..., None]
"""Sends a message home: its kind, and what is in it."""

RAW = "raw.npz"
LOGITS = "logits.npz"
ENGINE = "engine"


def _target(asked: str | None, power_mode: str | None) -> str:
    """Return the target on this machine.

    Raises:
        InputError: a power mode is asked for, and this is no Jetson.
    """
    from emca_deploy.machines.jetson.facts import detect

    target = asked or ("jetson" if detect() is not None else "cpu")
    if power_mode is not None and target != "jetson":
        raise InputError(f"--power-mode {power_mode}: the far machine is no Jetson board", "leave the option out")
    return target


def profile(request: dict[str, Any], run: Run, say: Say) -> dict[str, Any]:
    """Measure, and return the report; all samples are in a file beside it."""
    from emca_deploy.harness.measure.raw_samples import write_raw
    from emca_deploy.targets.profiling import ProfileRequest, profile_notes, run_profile

    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in request["options"].items()
    }
    asked = ProfileRequest(**{**options, "target": _target(request["there"], options["power_mode"])})
    for note in profile_notes(asked):
        say("note", text=note)
    report, raw = run_profile(asked, lambda done, total: say("progress", done=done, total=total))
    write_raw(run.folder / RAW, raw)
    run.made.append(RAW)
    return {**to_json(report), "there": asked.target}


def collect(request: dict[str, Any], run: Run, say: Say) -> dict[str, Any]:
    """Return what a run left whose line went down; empty where it left nothing."""
    left = run.folder / LEFT
    if not left.is_file():
        return {}
    kept = json.loads(left.read_text(encoding="utf-8"))
    run.made += list(kept["files"])
    document: dict[str, Any] = kept["document"]
    return document


def validate(request: dict[str, Any], run: Run, say: Say) -> dict[str, Any]:
    """Run a data set through a model; the logits are in a file beside the result, and stay until home has them."""
    import shutil

    import numpy as np

    from emca_deploy.artifacts import Preprocessing
    from emca_deploy.harness.accuracy.collection import LogitsRun

    given = request["options"]
    target = "cpu" if given["reference"] else _target(given["there"], given["power_mode"])
    kept = cache_root() / "logits" / f"{request['key']}.npz"
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    run.until_home.append(kept)
    asked = LogitsRun(
        _spec(given, target, say),
        Path(given["data"]),
        Preprocessing.from_dict(given["preprocessing"]),
        given["limit"],
        given["batch"],
    )
    with _board(target, given["power_mode"], say):
        found = asked.collect(lambda done, total: say("progress", done=done, total=total), kept)
    shutil.copyfile(kept, run.folder / LOGITS)
    run.made.append(LOGITS)
    with np.load(kept, allow_pickle=False) as arrays:
        key = json.loads(str(arrays["key"]))
    return {"key": key, "images_per_s": found.images_per_s, "reused": found.reused}


def _spec(given: dict[str, Any], target: str, say: Say) -> "RunnerSpec":
    """Return the candidate."""
    from emca_deploy.targets.candidates import LocalOptions, candidate, run_notes
    from emca_deploy.targets.gpu import gpu_candidate, gpu_index
    from emca_deploy.targets.jetson_candidates import jetson_candidate

    precision = "f32" if given["reference"] else given["precision"]
    untuned = given["reference"] or given["untuned"]
    options = LocalOptions(given["threads"], precision, target=target, untuned=untuned, io=given["io"])
    make = jetson_candidate if target == "jetson" else candidate if gpu_index(target) is None else gpu_candidate
    spec = make(given["artifact"], given["backend"], options)
    for note in run_notes((spec,), options) if target == "cpu" else ():
        say("note", text=note)
    # Images are decoded on the same cores meanwhile, so that waiting threads had better sleep.
    return replace(spec, kwargs={**spec.kwargs, "spin": False}) if "spin" in spec.kwargs else spec


@contextmanager
def _board(target: str, power_mode: str | None, say: Say) -> "Iterator[BoardSession | None]":
    """Hold a board's power mode for as long as the work takes."""
    if target != "jetson":
        yield None
        return
    from emca_deploy.machines.jetson.session import board_session

    with board_session(power_mode) as session:
        yield session
        for warning in session.warnings:
            say("note", text=warning)


def build(request: dict[str, Any], run: Run, say: Say) -> dict[str, Any]:
    """Build an engine, which is a file beside the result, and return its manifest."""
    from emca_deploy.targets.building import BuildRequest, build_here

    given = request["options"]
    choices = {name: _choice(name, value) for name, value in given["choices"].items()}
    asked = BuildRequest(**{**given, "choices": choices})
    power_mode = request["power_mode"]
    with _board(_target(request["there"], power_mode), power_mode, say) as board:
        manifest = build_here(asked, run.folder / ENGINE, lambda done, total: say("progress", done=done, total=total), board)
    run.made.append(ENGINE)
    return {"manifest": to_json(manifest)}


def _choice(name: str, value: Any) -> Any:
    """Return an option as the command line gives it."""
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if value is not None and name in ("calibration_cache", "timing_cache") else value


WORK: dict[str, Callable[[dict[str, Any], Run, Say], dict[str, Any]]] = {
    "profile": profile,
    "validate": validate,
    "build": build,
    "collect": collect,
}
