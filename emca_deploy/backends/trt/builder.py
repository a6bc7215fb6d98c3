"""Engines of TensorRT and TensorRT-RTX."""

import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy._machine import find_gpus
from emca_deploy._optional import import_optional
from emca_deploy.artifacts import Manifest, manifest_path, write_manifest
from emca_deploy.backends.base import RunOptions, library_reason, refuse_precision
from emca_deploy.backends.engines import EngineBuilder
from emca_deploy.backends.onnx_file import model_precision
from emca_deploy.backends.trt.inspect import Layer, int8_convolutions, read_layers
from emca_deploy.backends.trt.log import BuildLog, attach
from emca_deploy.backends.trt.network import ParsedModel, parse_model
from emca_deploy.backends.trt.settings import (
    PORTABLE_TARGETS,
    TrtSettings,
    batches_of,
    check_settings,
    load_timing_cache,
    make_config,
    save_timing_cache,
)
from emca_deploy.backends.trt.versions import MODULES, Rules, rules_of
from emca_deploy.backends.trt.watch import PhaseTracker, Progress, run_build
from emca_deploy.errors import InputError, MissingError, ModelError

__all__ = ["RtxBuilder", "TrtBuild", "TrtBuilder"]


@dataclass(frozen=True)
class TrtBuild:
    """What a build came to.

    Attributes:
        version: of the library.
        targets: compute capabilities it is for; empty where it is for the GPU it was built on.
        batches: smallest, likeliest and largest batch; None where the model fixes it.
        convolutions: of the model.
        quantized_convolutions: those with INT8 weights in the model.
        layers: of the engine.
        warnings: of parser and builder.
    """

    version: str
    targets: tuple[str, ...]
    batches: tuple[int, int, int] | None
    convolutions: int
    quantized_convolutions: int
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]

    @property
    def int8_convolutions(self) -> int:
        """Convolutions of the engine that compute in INT8."""
        return int8_convolutions(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return what a manifest records."""
        values = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items() if name != "layers"
        }
        kinds: dict[str, int] = {}
        for layer in self.layers:
            kinds[layer.kind] = kinds.get(layer.kind, 0) + 1
        return {**values, "int8_convolutions": self.int8_convolutions, "layers": len(self.layers), "layer_kinds": kinds}


class TrtBuilder(EngineBuilder):
    """Builds engines of TensorRT, on the GPU they are for.

    Args:
        settings: how to build.
        progress: called with (done, in all) while TensorRT works, from a thread of its own.
    """

    backend = "tensorrt"

    def __init__(self, settings: TrtSettings | None = None, progress: Progress | None = None) -> None:
        self._settings = settings or TrtSettings()
        self._progress = progress
        self.last: TrtBuild | None = None
        """What the last build came to."""

    def build(self, model: Path, output: Path, options: RunOptions) -> Manifest:
        """Write the engine to `output` and its manifest beside it, whole or not at all.

        Raises:
            ModelError: TensorRT does not take the model, would misread it, or compiles none of its INT8 convolutions to INT8.
            InputError: a setting or the batch makes no sense, `output` is the model itself, or the model is an engine already.
            MissingError: TensorRT is missing or too old, or it needs a GPU to build and there is none.
            OutputError: `output` cannot be written.
            KeyboardInterrupt: Ctrl-C; nothing is left.
        """
        manifest = super().build(model, output, options)
        assert self.last is not None  # `compile` has set it
        details = {**manifest.details, "machine": self._machine(self.last), "tensorrt": self.last.to_dict()}
        precision = "int8" if self.last.int8_convolutions else manifest.precision
        try:
            return write_manifest(output, replace(manifest, precision=precision, details=details))
        except BaseException:
            output.unlink(missing_ok=True)
            manifest_path(output).unlink(missing_ok=True)
            raise

    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the serialized engine and return the library's name and version.

        Raises:
            ModelError, InputError, MissingError: as `build`.
        """
        refuse_precision(self.backend, options.precision)
        trt = import_optional(MODULES[self.backend])
        rules = rules_of(self.backend, trt.__version__)
        check_settings(trt, self.backend, rules, self._settings)
        engine, built = self._attempt(trt, rules, model, options)
        if _lost_int8(built):
            # TensorRT-RTX 1.7 compiles the first model after one it refused without INT8, and the next one with it.
            engine, built = self._attempt(trt, rules, model, options)
        if _lost_int8(built):
            targets = f" for compute capability {', '.join(built.targets)}" if built.targets else ""
            raise ModelError(
                f"{model}: {self.backend} compiles none of its {built.quantized_convolutions} INT8 convolutions to INT8{targets}",
                f"calibrate the fp32 model with --backend {self.backend}, or build the fp32 model",
            )
        self.last = built
        output.write_bytes(memoryview(engine))
        return self.backend, built.version

    def _attempt(self, trt: Any, rules: Rules, model: Path, options: RunOptions) -> tuple[Any, TrtBuild]:
        """Return the serialized engine and what is known of it."""
        log = BuildLog()
        logger = attach(trt, log)
        builder = self._create(trt, rules, logger, log)
        builder.max_threads = options.threads
        parsed = parse_model(trt, builder, logger, log, (model, self.backend, rules))
        batches = batches_of(parsed.input, self._settings, options)
        config = make_config(trt, builder, parsed.input, batches, rules, self._settings)
        if rules.weak_typing and not rules.strong_flag:
            _allow_types(trt, config, model, parsed)
        cache = self._timing_cache(trt, config)
        tracker = PhaseTracker(self._progress or _unwatched) if rules.progress else None
        engine = run_build(trt, builder, parsed.network, config, tracker)
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
        try:
            return trt.Builder(logger)
        except (RuntimeError, TypeError) as exc:  # pybind raises TypeError where the library returns nothing
            reason = log.reason() if log.errors else library_reason(exc)
            raise MissingError(f"backend '{self.backend}' does not start: {reason}", "check the driver with nvidia-smi") from exc

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
        )

    def _machine(self, built: TrtBuild) -> dict[str, Any]:
        gpu = "NVIDIA GPU" if built.targets else (find_gpus() or ("NVIDIA GPU",))[0]
        names = [f"sm_{target.replace('.', '')}" for target in built.targets]
        return {"model": gpu, "architecture": platform.machine(), "instruction_sets": names}


class RtxBuilder(TrtBuilder):
    """Builds engines of TensorRT-RTX, for GPUs that are named; needs none itself."""

    backend = "tensorrt-rtx"


def _lost_int8(built: TrtBuild) -> bool:
    return built.quantized_convolutions > 0 and not built.int8_convolutions


def _unwatched(done: int, total: int) -> None:
    """Take progress that nobody watches: the monitor is needed all the same, to stop a build."""


def _allow_types(trt: Any, config: Any, model: Path, parsed: ParsedModel) -> None:
    """Let a weakly typed network use the types its model has."""
    if parsed.quantized_convolutions:
        config.set_flag(trt.BuilderFlag.INT8)
    if model_precision(model) == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)


def _failure(model: Path, backend: str, log: BuildLog) -> ModelError | InputError | MissingError:
    """Return the error for a build that TensorRT gave up."""
    reason = log.reason()
    if "OutOfMemory" in reason or "workspace" in reason:
        return InputError(f"{model}: the workspace is too small: {reason}", "allow more workspace, or a smaller largest batch")
    if "cudaError" in reason:
        return MissingError(f"backend '{backend}' cannot use the GPU: {reason}", "check the driver with nvidia-smi")
    return ModelError(f"{model}: {backend} cannot build it: {reason}", "try other targets, or another batch")
