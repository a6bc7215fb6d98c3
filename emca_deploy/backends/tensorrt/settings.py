"""The settings of a build, and TensorRT's configuration made from them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt.versions import Rules
from emca_deploy.errors import InputError, MissingError, OutputError

__all__ = [
    "PORTABLE_TARGETS", "TrtSettings", "batches_of", "check_batches", "check_trt_settings", "make_config",
    "prepare_timing_cache",
]  # fmt: skip

DEFAULT_BATCHES = (1, 1, 64)
PORTABLE_TARGETS = ("8.6", "8.9", "12.0")
LEVELS = range(6)
TARGET = re.compile(r"SM(\d+)(\d)$")


@dataclass(frozen=True)
class TrtSettings:
    """The settings of a build, in addition to `RunOptions`.

    Attributes:
        batches: Smallest, likeliest and largest batch of a model whose batch is dynamic; `RunOptions.batch` fixes it instead.
        workspace_mib: Most memory in MiB that a layer may use in addition to its tensors; None keeps TensorRT's limit.
        optimization_level: 0 builds fastest, 5 searches longest; None keeps TensorRT's (3).
        targets: Compute capabilities ("8.6") to compile for, TensorRT-RTX only; empty means `PORTABLE_TARGETS`.
        timing_cache: Folder with kernel measurements of earlier builds, TensorRT only; one file for each version and GPU.
        version_compatible: Whether later versions of TensorRT must run the engine, too.
        hardware_compatible: Whether all GPUs from Ampere on, except Jetsons, must run it.
        dla_core: DLA core that runs the engine, with the GPU for layers that it does not support.
        calibration_cache: File with the INT8 ranges of an fp32 model, for TensorRT up to 10.
    """

    batches: tuple[int, int, int] = DEFAULT_BATCHES
    workspace_mib: int | None = None
    optimization_level: int | None = None
    targets: tuple[str, ...] = ()
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: int | None = None
    calibration_cache: Path | None = None

    def weakly_typed(self, rules: Rules) -> bool:
        """Return whether builder flags choose the types: if the version has no other networks, or the settings need flags."""
        return rules.weak_typing and (not rules.strong_flag or self.dla_core is not None or self.calibration_cache is not None)


def check_trt_settings(trt: Any, backend: str, rules: Rules, settings: TrtSettings) -> None:
    """Raise InputError for settings that are wrong or that this version does not have."""
    check_batches(settings)
    if settings.optimization_level is not None and settings.optimization_level not in LEVELS:
        raise InputError(f"optimization level {settings.optimization_level} is unknown", "give 0 (fastest build) to 5")
    if settings.workspace_mib is not None and settings.workspace_mib < 1:
        raise InputError(f"a workspace of {settings.workspace_mib} MiB is too small", "give 1 MiB or more")
    _check_lacking(backend, str(trt.__version__), rules, settings)
    known = _targets(trt) if rules.targets else {}
    for target in settings.targets:
        if not rules.targets:
            raise InputError(f"backend '{backend}' builds for the GPU it runs on, not for {target}", "leave the targets out")
        if target not in known:
            raise InputError(f"{backend} {trt.__version__} cannot compile for '{target}'", f"use one of: {', '.join(known)}")


def check_batches(settings: TrtSettings) -> None:
    """Raise InputError where the batches are not in ascending order from 1."""
    smallest, likeliest, largest = settings.batches
    if not 1 <= smallest <= likeliest <= largest:
        raise InputError(
            f"batches {settings.batches} are not in ascending order from 1", "give smallest, likeliest and largest, in order"
        )


def _check_lacking(backend: str, version: str, rules: Rules, settings: TrtSettings) -> None:
    """Refuse settings that a version does not have."""
    cache, dla = settings.calibration_cache is not None, settings.dla_core is not None
    portable = "name the GPUs with --target-capability" if rules.targets else "leave it out"
    lacking = (
        (settings.timing_cache is not None and not rules.timing_cache, "a timing cache, since its builds time nothing",
         "leave it out"),
        (settings.version_compatible and not rules.compatible, "version-compatible engines", "build again for every version"),
        (settings.hardware_compatible and not rules.compatible, "the flag for hardware-compatible engines", portable),
        (dla and not rules.dla, "DLA", "use TensorRT 10.7 or older, or leave the DLA core out"),
        (cache and not rules.calibration_cache, "calibration caches", "build from a model with Q/DQ: emca-deploy calibrate"),
    )  # fmt: skip
    for wrong, what, remedy in lacking:
        if wrong:
            raise InputError(f"backend '{backend}' {version} does not have {what}", remedy)


def _targets(trt: Any) -> dict[str, Any]:
    """Return the compute capabilities this version compiles for: "8.6" by TensorRT's SM86."""
    members = trt.ComputeCapability.__members__
    return {f"{match[1]}.{match[2]}": members[name] for name in members if (match := TARGET.match(name))}


def batches_of(spec: TensorSpec, settings: TrtSettings, options: RunOptions) -> tuple[int, int, int] | None:
    """Return the profile's batches, None for a fixed batch; raise InputError for another fixed one, or several on a DLA."""
    own = spec.shape[0]
    if settings.dla_core is not None and isinstance(own, str) and options.batch is None and len(set(settings.batches)) > 1:
        raise InputError("a DLA takes only one batch size", "give it with --batch")
    if isinstance(own, int):
        if options.batch not in (None, own):
            raise InputError(f"the model's batch is fixed to {own}", f"use --batch {own}, or export it with a dynamic batch")
        return None
    return (options.batch,) * 3 if options.batch is not None else settings.batches


def make_config(
    trt: Any, builder: Any, spec: TensorSpec, batches: tuple[int, int, int] | None, rules: Rules, settings: TrtSettings
) -> Any:
    """Return the builder's configuration for a network with the input `spec`.

    Raises:
        InputError: the requested DLA core does not exist.
        MissingError: the machine has no DLA.
    """
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # makes the log list the layers with their types
    if batches is not None:
        profile = builder.create_optimization_profile()
        profile.set_shape(spec.name, *((batch, *spec.shape[1:]) for batch in batches))
        config.add_optimization_profile(profile)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.dla_core is not None:
        _place_on_dla(trt, builder, config, settings.dla_core)
    if rules.targets:
        known, targets = _targets(trt), settings.targets or PORTABLE_TARGETS
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(known[target], index)
    return config


def _place_on_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    cores = int(builder.num_DLA_cores)
    if not cores:
        raise MissingError("there is no DLA on this machine", "build on a board with one, or leave the DLA core out")
    if core >= cores:  # TensorRT would only log that, and build without the DLA
        raise InputError(f"there is no DLA core {core} on this machine", f"use one of: {', '.join(map(str, range(cores)))}")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def prepare_timing_cache(folder: Path) -> None:
    """Create the folder of the timing caches before a long build; raise OutputError where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{folder}: cannot be created: {exc.strerror}", "name a folder you can write to") from exc
