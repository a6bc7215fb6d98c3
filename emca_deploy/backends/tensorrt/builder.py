"""Engines of TensorRT and TensorRT-RTX."""

import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy._machine import find_gpus
from emca_deploy._optional import import_optional
from emca_deploy.artifacts import Manifest, Precision, TensorSpec, sha256_file
from emca_deploy.backends.base import RunOptions, refuse_precision
from emca_deploy.backends.engines import EngineBuilder
from emca_deploy.backends.tensorrt.cache import check_cache, reading_calibrator
from emca_deploy.backends.tensorrt.cuda import capability_here
from emca_deploy.backends.tensorrt.dla_log import DlaPlacement, read_placement
from emca_deploy.backends.tensorrt.inspect import EngineLayer, int8_convolutions, moved_bytes_by_type, read_layers
from emca_deploy.backends.tensorrt.log import BuildLog, attach, started
from emca_deploy.backends.tensorrt.model_facts import node_macs, read_facts
from emca_deploy.backends.tensorrt.network import ParsedModel, parse_model
from emca_deploy.backends.tensorrt.settings import (
    PORTABLE_TARGETS,
    TrtSettings,
    batches_of,
    check_trt_settings,
    load_timing_cache,
    make_config,
    prepare_timing_cache,
    save_timing_cache,
)
from emca_deploy.backends.tensorrt.versions import MODULES, Rules, rules_of
from emca_deploy.backends.tensorrt.watch import PhaseTracker, Progress, run_build
from emca_deploy.errors import InputError, MissingError, ModelError
from emca_deploy.onnx_file.file import OnnxFile

__all__ = ["RtxBuilder", "TrtBuild", "TrtBuilder", "described", "machine_of"]


@dataclass(frozen=True)
class TrtBuild:
    """What a build came to.

    Attributes:
        version: of the library.
        targets: compute capabilities it is for; empty where it is for the GPU it was built on.
        batches: smallest, likeliest and largest batch; None where the model fixes it.
        convolutions: of the model.
        quantized_convolutions: those with INT8 weights in the model.
        notes: warnings of theirs about what changes no number.
        float_precision: of what an INT8 model leaves in float, as the model has it; None of other models.
        dla_core: it runs on; None for the GPU alone.
        calibration_cache: whose ranges it has; None for the model's own.
        version_compatible: whether later versions run it, too.
        hardware_compatible: whether all GPUs from Ampere on run it.
        placement: of its layers on DLA and GPU; None for the GPU alone.
        input: of the model; a batch that is a string is dynamic.
    """

    version: str
    targets: tuple[str, ...]
    batches: tuple[int, int, int] | None
    convolutions: int
    quantized_convolutions: int
    layers: tuple[EngineLayer, ...]
    warnings: tuple[str, ...]
    dla_core: int | None = None
    calibration_cache: str | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    placement: DlaPlacement | None = None
    notes: tuple[str, ...] = ()
    float_precision: str | None = None
    input: TensorSpec | None = None

    @property
    def int8_convolutions(self) -> int:
        """Convolutions of the engine that compute in INT8."""
        return int8_convolutions(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return what a manifest records."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in ("layers", "placement", "input")
        }
        if self.input is not None:
            values["input"] = {**asdict(self.input), "shape": list(self.input.shape)}
        kinds: dict[str, int] = {}
        for layer in self.layers:
            kinds[layer.kind] = kinds.get(layer.kind, 0) + 1
        return {
            **values,
            "int8_convolutions": self.int8_convolutions,
            "moved_bytes": moved_bytes_by_type(self.layers),
            "layers": len(self.layers),
            "layer_kinds": kinds,
        }


def described(manifest: Manifest, built: TrtBuild, details: dict[str, Any]) -> Manifest:
    """Return a manifest with details of an engine, where its layers run, and INT8 where its log shows that."""
    details = {**manifest.details, **details}
    if built.placement is not None:
        details["dla"] = built.placement.to_dict(*node_macs(Path(details["source"])))
    cache = built.calibration_cache
    inputs = {**manifest.inputs, **({"calibration_cache": sha256_file(Path(cache))} if cache else {})}
    without: Precision = "fp16" if built.dla_core is not None else manifest.precision
    return replace(manifest, precision="int8" if built.int8_convolutions else without, inputs=inputs, details=details)


class TrtBuilder(EngineBuilder):
    """Builds engines of TensorRT, on the GPU they are for; a thread of its own calls `progress` with (done, in all)."""

    backend = "tensorrt"

    def __init__(self, settings: TrtSettings | None = None, progress: Progress | None = None) -> None:
        self._settings = settings or TrtSettings()
        self._progress = progress
        self.last: TrtBuild | None = None
        """What the last build came to."""

    def describe(self, manifest: Manifest) -> Manifest:
        """Return the manifest with what the builder's log says of the engine; INT8 is claimed only where that shows it."""
        assert self.last is not None  # `compile` has set it
        return described(manifest, self.last, {"machine": machine_of(self.last.targets), "tensorrt": self.last.to_dict()})

    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the serialized engine and return the library's name and version.

        Raises:
            ModelError: TensorRT does not take the model, would misread it, or compiles none of its INT8 convolutions to INT8.
            InputError: a setting, the batch or the cache makes no sense.
            MissingError: TensorRT is missing or too old, or it needs a GPU to build and there is none.
            KeyboardInterrupt: Ctrl-C; nothing is left.
        """
        refuse_precision(self.backend, options.precision)
        trt = import_optional(MODULES[self.backend])
        rules = rules_of(self.backend, trt.__version__)
        check_trt_settings(trt, self.backend, rules, self._settings)
        if self._settings.calibration_cache is not None:
            check_cache(self._settings.calibration_cache, str(trt.__version__))
        if self._settings.timing_cache is not None:
            prepare_timing_cache(self._settings.timing_cache)
        engine, built = self._attempt(trt, rules, model, options)
        if _lost_int8(built):
            # TensorRT-RTX 1.7 compiles the first model after one it refused without INT8, and the next one with it.
            engine, built = self._attempt(trt, rules, model, options)
        if _lost_int8(built):
            if self._settings.calibration_cache is not None:
                raise ModelError(
                    f"{model}: {self.backend} compiles no convolution to INT8 from {self._settings.calibration_cache}",
                    "write the cache for this very model, or calibrate to Q/DQ and build that",
                )
            targets = f" for compute capability {', '.join(built.targets)}" if built.targets else ""
            raise ModelError(
                f"{model}: {self.backend} compiles none of its {built.quantized_convolutions} INT8 convolutions to INT8{targets}",
                f"calibrate the fp32 model with --backend {self.backend}, or build the fp32 model",
            )
        if built.quantized_convolutions:
            built = replace(built, float_precision="fp16" if read_facts(model).half_scales else "fp32")
        self.last = built
        output.write_bytes(memoryview(engine))
        return self.backend, built.version

    def _attempt(self, trt: Any, rules: Rules, model: Path, options: RunOptions) -> tuple[Any, TrtBuild]:
        """Return the serialized engine and what is known of it."""
        log = BuildLog()
        logger = attach(trt, log)
        builder = self._create(trt, rules, logger, log)
        weak = self._settings.weakly_typed(rules)
        rules = replace(rules, strong_flag=rules.strong_flag and not weak)
        builder.max_threads = options.threads
        parsed = parse_model(trt, builder, logger, log, (model, self.backend, rules))
        batches = batches_of(parsed.input, self._settings, options)
        config = make_config(trt, builder, parsed.input, batches, rules, self._settings)
        calibrator = _allow_types(trt, config, model, parsed, self._settings) if weak else None
        cache = self._timing_cache(trt, config)
        tracker = PhaseTracker(self._progress or _unwatched) if rules.progress else None
        engine = run_build(trt, builder, parsed.network, config, tracker)
        del calibrator  # TensorRT holds no reference to it
        if engine is None:
            raise _failure(model, self.backend, log)
        if cache is not None:
            save_timing_cache(config, cache)
        return engine, self._outcome(trt, rules, log, parsed, batches)

    def _create(self, trt: Any, rules: Rules, logger: Any, log: BuildLog) -> Any:
        if rules.gpu_to_build and not find_gpus():
            raise MissingError(
                f"backend '{self.backend}' builds on the GPU its engines are for, and there is none here",
                "build on the target, or for RTX GPUs of any machine with --backend tensorrt-rtx",
            )
        return started(trt.Builder, logger, log, self.backend)

    def _timing_cache(self, trt: Any, config: Any) -> Path | None:
        if self._settings.timing_cache is None:
            return None
        gpu = "-".join((find_gpus() or ("gpu",))[0].split())
        path = self._settings.timing_cache / f"{self.backend}-{trt.__version__}-{gpu}.timing"
        load_timing_cache(config, path)
        return path

    def _outcome(
        self, trt: Any, rules: Rules, log: BuildLog, parsed: ParsedModel, batches: tuple[int, int, int] | None
    ) -> TrtBuild:
        targets = (self._settings.targets or PORTABLE_TARGETS) if rules.targets else ()
        return TrtBuild(
            str(trt.__version__),
            targets,
            batches,
            parsed.convolutions,
            parsed.quantized_convolutions,
            tuple(read_layers(log.layer_lines())),
            tuple(log.warnings),
            self._settings.dla_core,
            str(self._settings.calibration_cache) if self._settings.calibration_cache else None,
            self._settings.version_compatible,
            self._settings.hardware_compatible,
            read_placement(log.dla_lines()) if self._settings.dla_core is not None else None,
            tuple(log.notes),
            input=parsed.input,
        )


class RtxBuilder(TrtBuilder):
    """Builds engines of TensorRT-RTX, for GPUs that are named; needs none itself."""

    backend = "tensorrt-rtx"


def machine_of(targets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what machine an engine is for: GPUs of these compute capabilities, or this machine's where none is named."""
    gpu = "NVIDIA GPU" if targets else (find_gpus() or ("NVIDIA GPU",))[0]
    names = [f"sm_{target.replace('.', '')}" for target in targets or filter(None, [capability_here()])]
    return {"model": gpu, "architecture": platform.machine(), "instruction_sets": names}


def _lost_int8(built: TrtBuild) -> bool:
    """Return whether INT8 was to come out and did not; of a DLA's part the log does not say."""
    wanted = built.quantized_convolutions > 0 or built.calibration_cache is not None
    return wanted and built.dla_core is None and not built.int8_convolutions


def _unwatched(done: int, total: int) -> None:
    """Take progress that nobody watches: the monitor is needed all the same, to stop a build."""


def _allow_types(trt: Any, config: Any, model: Path, parsed: ParsedModel, settings: TrtSettings) -> Any:
    """Let a weakly typed network use the types of its model, cache and DLA; return what must outlive the build.

    Raises:
        ModelError: it has Q/DQ where ranges come from a cache, or where a DLA would have to take them, or fp16 Q/DQ.
        InputError: the cache is none, or one of another version.
    """
    implicit = "a calibration cache" if settings.calibration_cache else ("DLA" if settings.dla_core is not None else None)
    if parsed.quantized_convolutions and implicit:
        raise ModelError(f"{model}: has Q/DQ, which {implicit} does not go with", "name the fp32 model it was made from")
    if parsed.quantized_convolutions and read_facts(model).half_scales:
        raise ModelError(
            f"{model}: its Q/DQ is fp16, which wants types of the model's own: TensorRT 10 or newer",
            "calibrate it with --float-precision fp32",
        )
    if parsed.quantized_convolutions or settings.calibration_cache:
        config.set_flag(trt.BuilderFlag.INT8)
    if settings.dla_core is not None or OnnxFile.open(model).precision == "fp16":  # a DLA has no fp32
        config.set_flag(trt.BuilderFlag.FP16)
    if settings.calibration_cache is None:
        return None
    config.int8_calibrator = calibrator = reading_calibrator(trt, settings.calibration_cache)
    return calibrator


def _failure(model: Path, backend: str, log: BuildLog) -> ModelError | InputError | MissingError:
    """Return the error for a build that TensorRT gave up."""
    reason = log.reason()
    if "OutOfMemory" in reason or "workspace" in reason:
        return InputError(f"{model}: the workspace is too small: {reason}", "allow more workspace, or a smaller largest batch")
    if "cudaError" in reason:
        return MissingError(f"backend '{backend}' cannot use the GPU: {reason}", "check the driver with nvidia-smi")
    return ModelError(f"{model}: {backend} cannot build it: {reason}", "try other targets, or another batch")
