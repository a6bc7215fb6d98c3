"""Tuned settings: saves them in a manifest, decides whether they still fit, and passes them to a runner."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy._optional import installed_version
from emca_deploy.artifacts import Manifest, manifest_path, read_manifest, write_json
from emca_deploy.backends.base import PRECISION_OF_HINT, RUN_OPTIONS
from emca_deploy.backends.registry import BACKENDS, check_settings
from emca_deploy.errors import InputError, ModelError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.fingerprint import differing_parts, machine_parts
from emca_deploy.results.codec import to_json
from emca_deploy.results.tuning import Value, Values

__all__ = ["Tuned", "conditions_of", "find_tuned", "save_tuned", "tuned_here", "with_values"]

_PARTS = (
    "architecture", "cpu", "instruction_sets", "smt", "numa_nodes",
    "physical_cores", "online_cores", "usable_cores", "quota_cores",
)  # fmt: skip
"""Parts of the fingerprint that must be unchanged; another kernel or clock policy changes times, but hardly their order."""

_REMEDY = "tune it again with `emca-deploy tune`, or ignore the settings with --untuned"


@dataclass(frozen=True)
class Tuned:
    """The settings in a manifest for a backend and a scenario.

    Attributes:
        values: Settings to run with; empty if the defaults are fastest, or if none fit.
        note: Line for the user; None if the manifest has no settings.
        batch: Fastest number of images per call; None if it was not tuned.
    """

    values: Values
    note: str | None = None
    batch: int | None = None


def with_values(spec: RunnerSpec, values: Mapping[str, Value]) -> RunnerSpec:
    """Return a candidate with settings. Threads, spin and precision are runner options; the harness needs the batch, too."""
    options: dict[str, Any] = {name: value for name, value in values.items() if name in RUN_OPTIONS}
    own = {name: value for name, value in values.items() if name not in (*RUN_OPTIONS, "batch")}
    kwargs = {**spec.kwargs, **options}
    if own:
        kwargs["settings"] = {**spec.kwargs.get("settings", {}), **own}
    precision = PRECISION_OF_HINT.get(str(options.get("precision")), spec.precision)
    if "batch" not in values:
        return replace(spec, kwargs=kwargs, precision=precision)
    batch = int(values["batch"])
    return replace(spec, kwargs={**kwargs, "batch": batch}, precision=precision, batch=batch)


def tuned_here(backend: str) -> dict[str, Any]:
    """Return what settings depend on: this machine and the version of the runtime."""
    module = BACKENDS[backend].module
    return conditions_of(machine_parts(), installed_version(module) if module else None)


def conditions_of(parts: Mapping[str, Any], runtime: str | None) -> dict[str, Any]:
    """Return what settings depend on, of a machine's fingerprint and a runtime's version."""
    return {"machine": {name: parts[name] for name in _PARTS}, "runtime": runtime}


def find_tuned(path: Path, manifest: Manifest, backend: str, scenario: str) -> Tuned:
    """Return the settings to run an artifact with.

    Raises:
        ModelError: the record in the manifest is not valid.
    """
    records = (one for one in manifest.settings if (one.get("backend"), one.get("scenario")) == (backend, scenario))
    record = next(records, None)
    if record is None:
        return Tuned({})
    try:
        values, batch = dict(record["values"]), record.get("batch")
        check_settings(backend, {name: value for name, value in values.items() if name not in (*RUN_OPTIONS, "batch")})
        now = tuned_here(backend)
        differences = differing_parts(now["machine"], record["machine"])
        if now["runtime"] != record["runtime"]:
            differences.append(f"{backend}: {now['runtime']}, not {record['runtime']}")
        good = isinstance(values.get("threads", 1), int) and isinstance(batch, int | None)
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as exc:
        raise ModelError(f"{manifest_path(path)}: the tuned settings in this manifest are not valid: {exc}", _REMEDY) from exc
    if not good:
        raise ModelError(f"{manifest_path(path)}: the tuned settings in this manifest are not valid", _REMEDY)
    if differences:
        shown = "; ".join(differences[:2])
        return Tuned({}, f"{path}: tuned on another machine or version, so its settings are not used ({shown}); tune it again")
    if not values:
        return Tuned({}, None, batch)
    shown = ", ".join(f"{name}={value}" for name, value in values.items())
    return Tuned(values, f"{path}: runs with its tuned settings ({shown}); --untuned takes the defaults", batch)


def save_tuned(path: Path, record: Mapping[str, Any]) -> Path:
    """Write a record into the manifest of an artifact, and return the manifest's path.

    It replaces the record for the same backend and scenario. It has "backend", "scenario", "values" (what differs from the
    defaults), the items of `tuned_here`, and any others.

    Raises:
        ModelError: the artifact has no manifest, or has changed since.
        OutputError: the manifest cannot be written.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise ModelError(f"{path}: has no manifest to keep settings in", "keep them in a file with -o")
    key = (record["backend"], record["scenario"])
    others = [old for old in manifest.settings if (old.get("backend"), old.get("scenario")) != key]
    written = replace(manifest, settings=(*others, dict(record)))
    write_json(manifest_path(path), to_json(written))
    return manifest_path(path)
