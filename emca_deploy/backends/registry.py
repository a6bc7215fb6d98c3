"""The backend of an artifact, and a backend's parts by name: runners, builders, layer profilers, settings to tune."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from emca_deploy._machine import default_threads
from emca_deploy._optional import installed_version
from emca_deploy._version import __version__
from emca_deploy.artifacts import manifest_path, read_manifest
from emca_deploy.backends.backend import Backend, load_part
from emca_deploy.backends.base import Builder, ModelIo, Runner, RunOptions, Situation
from emca_deploy.backends.layer_profiler import LayerProfiler
from emca_deploy.backends.records import BACKENDS, DEFAULT, names_where, one_of
from emca_deploy.errors import EngineError, InputError, MissingError, ModelError, UnknownNameError
from emca_deploy.results.tuning import Tunable

if TYPE_CHECKING:
    from emca_deploy.calibration.placement.recipe import Recipe

__all__ = [
    "BACKENDS",
    "CPU_BACKENDS",
    "DEFAULT",
    "Backend",
    "BackendStatus",
    "all_recipes",
    "available",
    "backend_of",
    "check_settings",
    "find_recipe",
    "get_builder",
    "names_no_file",
    "open_gpu_runner",
    "open_profiler",
    "open_runner",
    "read_options",
    "recipe_of",
    "tunables",
]

CPU_BACKENDS = names_where(builder=True, needs_gpu=False)
"""The backends that are built and compared on the CPU; the first at fp32 is the baseline there."""

CHECKPOINTS = (".pth", ".pt", ".tar", ".ckpt", ".safetensors", ".json")


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used on this machine.

    Attributes:
        version: Version of its library; None where it is not installed.
        reason: Reason why it cannot be used; None where it can.
    """

    version: str | None
    reason: str | None = None
    remedy: str | None = None


def available() -> dict[str, BackendStatus]:
    """Return the status of all backends by name, from metadata only: no runtime is imported."""
    return {name: _status(name) for name in BACKENDS}


def _status(name: str) -> BackendStatus:
    backend = BACKENDS[name]
    if backend.failure is not None:
        return BackendStatus(None, backend.failure, "update or uninstall the distribution that contains it")
    if backend.package is None:
        return BackendStatus(__version__)
    if find_spec(backend.package.module) is None:
        return BackendStatus(None, f"{backend.package.distribution} is not installed", backend.package.install)
    version = installed_version(backend.package.module) or "unknown"
    trouble = load_part(backend.trouble)() if backend.trouble else None
    return BackendStatus(version, *(trouble or ()))


def _known(name: str) -> Backend:
    if name not in BACKENDS:
        public = names_where()
        raise UnknownNameError.of("backend", name, public, f"backends: {', '.join(public)}")
    return BACKENDS[name]


def _installed(name: str) -> Backend:
    """Return a backend whose library is installed; the runner reports a missing device, after it has checked the file."""
    backend = _known(name)
    status = _status(name)
    if status.version is None:
        raise MissingError(f"backend '{name}': {status.reason}", status.remedy or "choose another backend")
    return backend


def names_no_file(artifact: str) -> bool:
    """Return whether an artifact names a hidden backend with settings, "fake:latency_ms=2", rather than a file."""
    scheme = artifact.partition(":")[0]
    return scheme in BACKENDS and BACKENDS[scheme].hidden


def open_runner(backend: str, artifact: str, **options: Any) -> Runner:
    """Return the runner of an artifact, not opened yet; the options are the parameters of `read_options`.

    Raises:
        UnknownNameError: there is no such backend, or it has no such setting.
        MissingError: the backend's library is not installed.
        InputError: threads or batch is not positive, or a setting has a value that it does not take.
    """
    given = read_options(backend, **options)
    return cast("Runner", load_part(_installed(backend).runner)(artifact, given))


def read_options(
    backend: str,
    threads: int = 1,
    precision: str = "f32",
    batch: int | None = None,
    spin: bool = True,
    settings: Mapping[str, Any] | None = None,
    io: Mapping[str, Any] | None = None,
) -> RunOptions:
    """Return checked `RunOptions` from its fields; `io` is given as JSON. Raises what `open_runner` raises for options."""
    check_settings(backend, settings or {})
    for name, value in (("threads", threads), ("batch", batch)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}", f"give --{name} 1 or more")
    return RunOptions(threads, precision, batch, spin, dict(settings or {}), ModelIo.from_dict(io or {}))


def open_gpu_runner(backend: str, artifact: str, device: int = 0, batch: int | None = None, variant: str = "") -> Runner:
    """Return the runner of an artifact on an NVIDIA GPU, not opened yet; `variant` is one of the backend's `variants`.

    Raises:
        UnknownNameError: there is no such backend.
        MissingError: its library is not installed.
        InputError: it does not run on GPUs, or the batch is not positive.
    """
    entry = _installed(backend)
    if entry.on_gpu is None:
        raise InputError(f"backend '{backend}' does not run on a GPU", f"choose one of: {', '.join(names_where(on_gpu=True))}")
    arguments = {"device": device, **({"variant": variant} if variant else {})}
    return cast("Runner", load_part(entry.on_gpu)(artifact, read_options(backend, default_threads(), batch=batch), **arguments))


def get_builder(backend: str) -> Builder:
    """Return the builder of a backend's engines.

    Raises:
        UnknownNameError: there is no such backend.
        MissingError: its library is not installed.
        InputError: it has no engines.
    """
    entry = _installed(backend)
    if entry.builder is None:
        able = ", ".join(names_where(builder=True))
        raise InputError(f"backend '{backend}' has no engines to build", f"choose one of: {able}")
    return cast("Builder", load_part(entry.builder)())


def backend_of(artifact: Path, asked: str | None) -> str:
    """Return the backend that runs an artifact; `asked` is the one the user names.

    The manifest decides for an engine, and PyTorch runs a checkpoint. An .onnx file runs on the backend asked for, else on the
    one its INT8 placement was made for if that can run on this processor, else on ONNX Runtime.

    Raises:
        UnknownNameError: there is no such backend.
        InputError: the artifact cannot run on the requested backend.
        EngineError: the artifact is neither an .onnx file nor an engine with its manifest.
        ModelError: the manifest cannot be read.
    """
    if asked is not None:
        _known(asked)
    if names_no_file(artifact.name):
        return _agreed(artifact, artifact.name.partition(":")[0], asked)
    if artifact.suffix.lower() in CHECKPOINTS:
        return _agreed(artifact, next(name for name, backend in BACKENDS.items() if backend.checkpoints), asked)
    manifest = read_manifest(artifact, verify=False)
    if manifest is not None and manifest.kind == "engine":
        if manifest.backend not in BACKENDS:
            raise ModelError(
                f"{manifest_path(artifact)}: names an unknown backend: '{manifest.backend}'", "build the engine again"
            )
        return _agreed(artifact, manifest.backend, asked)
    if manifest is None and artifact.suffix.lower() != ".onnx" and artifact.exists():
        raise EngineError(
            f"{artifact}: is neither an .onnx file nor an engine with its manifest",
            f"copy {artifact.name}.manifest.json along with an engine, or name the .onnx file",
        )
    if asked is not None:
        if not BACKENDS[asked].reads_onnx and not BACKENDS[asked].builder:
            able = one_of(names_where(reads_onnx=True))
            raise InputError(f"{artifact}: backend '{asked}' does not run ONNX files", f"use --backend {able}")
        return asked
    placed = manifest.backend if manifest else None
    return placed if placed in BACKENDS and not BACKENDS[placed].needs_gpu and _status(placed).reason is None else DEFAULT


def _agreed(artifact: Path, owner: str, asked: str | None) -> str:
    if asked not in (None, owner):
        backend = BACKENDS[owner]
        kind = "a checkpoint" if backend.checkpoints else "an engine"
        what = f"a {owner}" if backend.hidden else f"{kind} of backend '{owner}'"
        raise InputError(f"{artifact}: is {what}, not for backend '{asked}'", f"use --backend {owner}, or another artifact")
    return owner


def open_profiler(backend: str, artifact: str, **options: Any) -> LayerProfiler:
    """Return an artifact's layer profiler, not opened yet; raise InputError for a backend that reports no layer times."""
    found = _known(backend)
    if found.layers is not None:
        return cast("LayerProfiler", load_part(found.layers)(artifact, read_options(backend, **options)))
    if found.needs_gpu:
        raise InputError(
            f"{artifact}: layers of backend '{backend}' are read from a file",
            "trtexec --loadEngine=ENGINE --exportProfile=PROFILE.json, and name that file",
        )
    able = names_where(layers=True)
    raise UnknownNameError.of("backend with a layer profile", backend, able, f"use one of: {', '.join(able)}")


def find_recipe(backend: str, weight_bits: int | None = None) -> "Recipe":
    """Return a backend's recipe, with weights of 8 or 7 bits.

    None chooses 7 bits for a recipe that runs on a processor, where this one would saturate with 8, else 8.

    Raises:
        UnknownNameError: the backend has no recipe.
        InputError: the backend needs 8 bits, and 7 are requested.
    """
    known = names_where(recipe=True)
    if backend not in known:
        raise UnknownNameError.of("backend with an INT8 placement", backend, known, f"one of: {', '.join(known)}")
    recipe: Recipe = load_part(str(BACKENDS[backend].recipe))
    return recipe.with_weight_bits(weight_bits)


def recipe_of(backend: str) -> "Recipe | None":
    """Return a backend's recipe, or None where it has none."""
    return find_recipe(backend) if backend in names_where(recipe=True) else None


def all_recipes() -> "tuple[Recipe, ...]":
    """Return the recipes of all backends: one pass measures the tensors that any of them quantizes."""
    return tuple(map(find_recipe, names_where(recipe=True)))


def check_settings(backend: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that a backend does not have, such as those of an edited manifest.

    Raises:
        UnknownNameError: the backend has no such setting.
        InputError: the setting does not take that value.
    """
    known = BACKENDS[backend].settings if backend in BACKENDS else {}
    for name, value in settings.items():
        if name not in known:
            remedy = f"settings of '{backend}': {', '.join(known) or 'none'}"
            raise UnknownNameError.of(f"setting of backend '{backend}'", name, known, remedy)
        values = known[name]
        good = value in values if values else value == "AUTO" or (isinstance(value, int) and value > 0)
        if not good or isinstance(value, bool) != (values == (False, True)):
            taken = ", ".join(map(str, values)) if values else "a number from 1, or AUTO"
            raise InputError(f"setting '{name}' of backend '{backend}' is {value!r}", f"it takes: {taken}")


def tunables(backend: str, situation: Situation) -> tuple[Tunable, ...]:
    """Return the settings to try for a backend on this machine, the threads first.

    Raises:
        InputError: the backend has no settings, or does not compute in one of the precisions.
        MissingError: its library is not installed.
    """
    place = _known(backend).tunables
    if place is None:
        able = ", ".join(names_where(tunables=True))
        raise InputError(f"backend '{backend}' has no settings to tune", f"use one of: {able}")
    own: list[Tunable] = load_part(place)(situation)
    return (_threads(situation), *(tunable for tunable in own if tunable.others))


def _threads(situation: Situation) -> Tunable:
    """Return the thread counts to try: 1 to 4, then powers of two, and the numbers of physical and logical cores."""
    cpu, most = situation.cpu, situation.threads_max
    wanted = {1, 2, 3, 4, 8, 16, 32, 64, 128, cpu.physical_cores, cpu.logical_cores, most}
    values = sorted(number for number in wanted if number <= most and number != situation.threads_default)
    return Tunable("threads", situation.threads_default, tuple(values))
