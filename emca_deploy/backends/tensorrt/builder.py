"""Engines of TensorRT and TensorRT-RTX."""

import platform
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy._machine import find_gpus
from emca_deploy._optional import import_optional
from emca_deploy.artifacts import Manifest, Precision, TensorSpec, atomic_write, sha256_file
from emca_deploy.backends.base import RunOptions, refuse_precision
from emca_deploy.backends.engines import EngineBuilder
from emca_deploy.backends.records import BACKENDS
from emca_deploy.backends.tensorrt.cache import check_cache, reading_calibrator
from emca_deploy.backends.tensorrt.cuda import capability_here
from emca_deploy.backends.tensorrt.dla_log import DlaPlacement, read_placement
from emca_deploy.backends.tensorrt.inspect import EngineLayer, int8_convolutions, moved_bytes_by_type, read_layers
from emca_deploy.backends.tensorrt.log import BuildLog, attach, started
from emca_deploy.backends.tensorrt.model_facts import half_refusal, node_macs, qdq_refusal, read_facts
from emca_deploy.backends.tensorrt.network import ParsedModel, parse_model
from emca_deploy.backends.tensorrt.operators import check_operators
from emca_deploy.backends.tensorrt.settings import (
    PORTABLE_TARGETS,
    TrtSettings,
    batches_of,
    check_trt_settings,
    make_config,
    prepare_timing_cache,
)
from emca_deploy.backends.tensorrt.versions import Rules, rules_of
from emca_deploy.backends.tensorrt.watch import PhaseTracker, Progress, run_build
from emca_deploy.errors import InputError, MissingError, ModelError
from emca_deploy.harness.clock import no_garbage_collection
from emca_deploy.machines.boards import numbers_of
from emca_deploy.onnx_file.file import OnnxFile

__all__ = ["RtxBuilder", "TrtBuild", "TrtBuilder", "described", "machine_of"]


@dataclass(frozen=True)
class TrtBuild:
    """The result of a build.

    Attributes:
        targets: Compute capabilities the engine is for; empty if it is for the GPU it was built on.
        batches: Smallest, likeliest and largest batch; None where the model fixes it.
        convolutions: Number of convolutions of the model.
        quantized_convolutions: Number of those with INT8 weights in the model.
        dla_core: DLA core that runs the engine; None for the GPU alone.
        calibration_cache: File with the INT8 ranges; None for those of the model.
        version_compatible: Whether later versions run the engine, too.
        hardware_compatible: Whether all GPUs from Ampere on run it.
        placement: Placement of its layers on DLA and GPU; None for the GPU alone.
        notes: The library's warnings that concern no number.
        float_precision: Precision of the float part of an INT8 model; None for other models.
        input: Input of the model; a batch that is a string is dynamic.
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
        """The number of the engine's convolutions that compute in INT8."""
        return int8_convolutions(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the record for a manifest."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in ("layers", "placement", "input")
        }
        if self.input is not None:
            values["input"] = {**asdict(self.input), "shape": list(self.input.shape)}
        return {
            **values,
            "int8_convolutions": self.int8_convolutions,
            "moved_bytes": moved_bytes_by_type(self.layers),
            "layers": len(self.layers),
            "layer_kinds": dict(Counter(layer.kind for layer in self.layers)),
        }


def described(manifest: Manifest, built: TrtBuild, details: dict[str, Any]) -> Manifest:
    """Return a manifest with an engine's details and the placement of its layers; its precision is int8 if the log shows that."""
    details = {**manifest.details, **details}
    if built.placement is not None:
        details["dla"] = built.placement.to_dict(*node_macs(Path(details["source"])))
    cache = built.calibration_cache
    inputs = {**manifest.inputs, **({"calibration_cache": sha256_file(Path(cache))} if cache else {})}
    without: Precision = "fp16" if built.dla_core is not None else manifest.precision
    return replace(manifest, precision="int8" if built.int8_convolutions else without, inputs=inputs, details=details)


class TrtBuilder(EngineBuilder):
    """Builds engines of TensorRT on the GPU they are for; a separate thread calls `progress` with (done, total)."""

    backend = "tensorrt"

    def __init__(self, settings: TrtSettings | None = None, progress: Progress | None = None) -> None:
        self._settings = settings or TrtSettings()
        self._progress = progress
        self.last: TrtBuild | None = None
        """The result of the last build."""

    def describe(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the engine's details from the builder's log."""
        assert self.last is not None  # `compile` has set it
        return described(manifest, self.last, {"machine": machine_of(self.last.targets), "tensorrt": self.last.to_dict()})

    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the serialized engine and return the library's name and version.

        Raises:
            ModelError: TensorRT does not accept the model, would misread it, or compiles none of its INT8 convolutions to INT8.
            InputError: a setting, the batch or the cache is wrong.
            MissingError: TensorRT is missing or too old, or there is no GPU and it needs one to build.
            KeyboardInterrupt: Ctrl-C was pressed; no file remains.
        """
        refuse_precision(self.backend, options.precision)
        trt = import_optional(str(BACKENDS[self.backend].module))
        rules = rules_of(self.backend, trt.__version__)
        check_trt_settings(trt, self.backend, rules, self._settings)
        if self._settings.calibration_cache is not None:
            check_cache(self._settings.calibration_cache, str(trt.__version__))
        check_operators(model, self.backend, numbers_of(trt.__version__))
        if self._settings.timing_cache is not None:
            prepare_timing_cache(self._settings.timing_cache)
        with no_garbage_collection():
            engine, built = self._attempt(trt, rules, model, options)
        if _lost_int8(built):
            # After a model that it refuses, TensorRT-RTX 1.7 compiles the next one without INT8, and the one after that with it.
            with no_garbage_collection():
                engine, built = self._attempt(trt, rules, model, options)
        if _lost_int8(built):
            if self._settings.calibration_cache is not None:
                raise ModelError(
                    f"{model}: {self.backend} compiles no convolution to INT8 with {self._settings.calibration_cache}",
                    "write the cache for this model, or calibrate to Q/DQ and build that model",
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
        """Return the serialized engine and the result of the build."""
        log = BuildLog()
        logger = attach(trt, log)
        if rules.gpu_to_build and not find_gpus():
            raise MissingError(
                f"backend '{self.backend}' builds on the GPU its engines are for, and this machine has none",
                "build on the target, or build for RTX GPUs on any machine with --backend tensorrt-rtx",
            )
        builder = started(trt.Builder, logger, log, self.backend)
        weak = self._settings.weakly_typed(rules)
        rules = replace(rules, strong_flag=rules.strong_flag and not weak)
        builder.max_threads = options.threads
        parsed = parse_model(trt, builder, logger, log, (model, self.backend, rules), options.io)
        batches = batches_of(parsed.input, self._settings, options)
        config = make_config(trt, builder, parsed.input, batches, rules, self._settings)
        calibrator = _allow_types(trt, config, model, parsed, self._settings) if weak else None
        cache = self._timing_cache(trt, config)
        # Without a reader of the progress the monitor is needed all the same, to stop a build.
        tracker = PhaseTracker(self._progress or (lambda done, total: None)) if rules.progress else None
        engine = run_build(trt, builder, parsed.network, config, tracker)
        del calibrator  # TensorRT holds no reference to it
        if engine is None:
            raise _failure(model, self.backend, log)
        if cache is not None:
            with atomic_write(cache) as temporary:
                temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
        return engine, self._outcome(trt, rules, log, parsed, batches)

    def _timing_cache(self, trt: Any, config: Any) -> Path | None:
        """Give the builder the measurements of an earlier build on this GPU, and return the file to keep the new ones in."""
        if self._settings.timing_cache is None:
            return None
        gpu = "-".join((find_gpus() or ("gpu",))[0].split())
        path = self._settings.timing_cache / f"{self.backend}-{trt.__version__}-{gpu}.timing"
        config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.is_file() else b""), False)
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
            tuple(read_layers(log.layer_lines)),
            tuple(log.warnings),
            self._settings.dla_core,
            str(self._settings.calibration_cache) if self._settings.calibration_cache else None,
            self._settings.version_compatible,
            self._settings.hardware_compatible,
            read_placement(log.dla_lines) if self._settings.dla_core is not None else None,
            tuple(log.notes),
            input=parsed.input,
        )


class RtxBuilder(TrtBuilder):
    """Builds engines of TensorRT-RTX for given GPUs; the build itself needs no GPU."""

    backend = "tensorrt-rtx"


def machine_of(targets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the machine an engine is for: GPUs of these compute capabilities, or this machine's GPU if there are none."""
    gpu = "NVIDIA GPU" if targets else (find_gpus() or ("NVIDIA GPU",))[0]
    names = [f"sm_{target.replace('.', '')}" for target in targets or filter(None, [capability_here()])]
    return {"model": gpu, "architecture": platform.machine(), "instruction_sets": names}


def _lost_int8(built: TrtBuild) -> bool:
    """Return whether an INT8 engine was wanted and has no INT8 convolution; a DLA's part is not in the log."""
    wanted = built.quantized_convolutions > 0 or built.calibration_cache is not None
    return wanted and built.dla_core is None and not built.int8_convolutions


def _allow_types(trt: Any, config: Any, model: Path, parsed: ParsedModel, settings: TrtSettings) -> Any:
    """Let a weakly typed network use the types of its model, cache and DLA; return the calibrator, which must outlive the build.

    Raises:
        ModelError: the model has Q/DQ together with a cache or a DLA, or fp16 Q/DQ.
        InputError: the cache is not a calibration cache of this version.
    """
    implicit = "a calibration cache" if settings.calibration_cache else ("DLA" if settings.dla_core is not None else None)
    if parsed.quantized_convolutions and implicit:
        raise qdq_refusal(model, implicit)
    if parsed.quantized_convolutions and read_facts(model).half_scales:
        raise half_refusal(model)
    if parsed.quantized_convolutions or settings.calibration_cache:
        config.set_flag(trt.BuilderFlag.INT8)
    if settings.dla_core is not None or OnnxFile.open(model).precision == "fp16":  # a DLA has no fp32
        config.set_flag(trt.BuilderFlag.FP16)
    if settings.calibration_cache is None:
        return None
    config.int8_calibrator = calibrator = reading_calibrator(trt, settings.calibration_cache)
    return calibrator


def _failure(model: Path, backend: str, log: BuildLog) -> ModelError | InputError | MissingError:
    """Return the error for a failed build."""
    reason = log.reason()
    if "OutOfMemory" in reason or "workspace" in reason:
        return InputError(f"{model}: the workspace is too small: {reason}", "allow more workspace, or a smaller largest batch")
    if "cudaError" in reason:
        return MissingError(f"backend '{backend}' cannot use the GPU: {reason}", "check the driver with nvidia-smi")
    return ModelError(f"{model}: {backend} cannot build it: {reason}", "try other targets, or another batch")
