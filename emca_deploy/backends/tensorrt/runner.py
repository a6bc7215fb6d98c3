"""Running engines of TensorRT and TensorRT-RTX on an NVIDIA GPU."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Manifest, TensorSpec, read_manifest
from emca_deploy.backends.base import Runner, RunOptions, check_logits, refuse_precision
from emca_deploy.backends.engines import engine_io as recorded_io
from emca_deploy.backends.records import BACKENDS
from emca_deploy.backends.tensorrt.builder import RtxBuilder, TrtBuilder
from emca_deploy.backends.tensorrt.cuda import Gpu, GpuFacts, open_gpu
from emca_deploy.backends.tensorrt.log import BuildLog, attach, started
from emca_deploy.backends.tensorrt.network import engine_boundary
from emca_deploy.backends.tensorrt.runner_checks import check_gpu_fits, check_profile, check_version, profile_of, read_engine
from emca_deploy.backends.tensorrt.runner_execution import Execution, engine_io, not_deserialized
from emca_deploy.backends.tensorrt.settings import TrtSettings
from emca_deploy.backends.tensorrt.versions import rules_of
from emca_deploy.errors import InputError
from emca_deploy.machines.nvidia import check_rtx
from emca_deploy.results.codec import to_json

__all__ = ["RtxRunner", "TrtRunner"]


class TrtRunner(Runner):
    """Runs an engine of `TrtBuilder`, or an .onnx file, from which it builds an engine for this GPU first.

    With a batch in the options the shape is fixed, and calls replay a CUDA graph.
    """

    backend = "tensorrt"
    builder: type[TrtBuilder] = TrtBuilder

    def __init__(self, artifact: str, options: RunOptions, device: int = 0) -> None:
        self._path = Path(artifact)
        self._options = options
        self._device = device
        self._gpu: Gpu | None = None
        self._execution: Execution | None = None
        self._answers: dict[str, npt.NDArray[Any]] = {}
        self._kept: tuple[Any, ...] = ()
        self._profile: tuple[int, int, int] | None = None
        self._version = ""

    @property
    def device_ms(self) -> float | None:
        """The time of the last call on the GPU in ms, without copies; None before the first."""
        return self._execution.device_ms if self._execution else None

    def open(self) -> None:
        """Check the engine, then load it, and set `input` and `output`.

        The checks that need no GPU come first: the file and its manifest, the library, the driver, and whether the engine is for
        this GPU. Only then does TensorRT read its bytes.

        Raises:
            EngineError, InputError, ModelError: the file cannot run here, or its profile excludes the batch.
            MissingError: TensorRT, cuda-bindings, the driver or the GPU is missing or too old.
        """
        refuse_precision(self.backend, self._options.precision)
        known = read_manifest(self._path, verify=False)
        is_model = self._path.suffix.lower() == ".onnx" and (known is None or known.kind != "engine")
        read = None if is_model else read_engine(self._path, self.backend)
        if read is not None and self._options.batch is not None:
            check_profile(self._path, profile_of(read[1]), self._options.batch)
        trt = import_optional(str(BACKENDS[self.backend].module))
        self._version = str(trt.__version__)
        rules_of(self.backend, self._version)  # refuses old versions
        if read is not None:
            check_version(self._path, read[1], self._version)
        self._gpu = open_gpu(self._device)
        try:
            engine, manifest = read if read is not None else self._built(self._gpu.facts)
            check_gpu_fits(self._path, manifest, self._gpu.facts)
            self._load(trt, engine, manifest)
        except BaseException:
            self.close()
            raise

    def _built(self, gpu: GpuFacts) -> tuple[bytes, Manifest]:
        """Build an engine of the .onnx file for this GPU, and return its bytes and manifest."""
        targets: tuple[str, ...] = ()
        if self.backend == "tensorrt-rtx":
            check_rtx(gpu.capability)
            targets = (gpu.capability,)
        options = replace(self._options, threads=max(1, self._options.threads))
        with tempfile.TemporaryDirectory(prefix="emca-deploy-") as folder:
            output = Path(folder) / "model.engine"
            self.builder(TrtSettings(targets=targets)).build(self._path, output, options)
            return read_engine(output, self.backend)

    def _load(self, trt: Any, engine_bytes: bytes, manifest: Manifest) -> None:
        assert self._gpu is not None
        log = BuildLog()
        logger = attach(trt, log)
        runtime = started(trt.Runtime, logger, log, self.backend)
        if manifest.details.get("tensorrt", {}).get("version_compatible"):
            runtime.engine_host_code_allowed = True  # the engine contains its runtime; its hash shows that it is unchanged
        engine = runtime.deserialize_cuda_engine(engine_bytes)
        if engine is None:
            raise not_deserialized(str(self._path), log)
        inputs, outputs = engine_io(trt, engine)
        boundary = engine_boundary(self._path, inputs, outputs, recorded_io(manifest, self._options.io))
        spec, self.output, self.softmax, self.task = boundary.input, boundary.output, boundary.softmax, boundary.task
        if isinstance(spec.shape[0], str):
            smallest, likeliest, largest = (int(shape[0]) for shape in engine.get_tensor_profile_shape(spec.name, 0))
            self._profile = (smallest, likeliest, largest)
        self.input, fixed, room = self._batches(spec)
        context = _context(trt, engine, rtx=self.backend == "tensorrt-rtx")
        if context is None:
            raise not_deserialized(str(self._path), log)
        self._kept = (logger, runtime, engine, context)
        native = replace(boundary.native, shape=(self.input.shape[0], *boundary.native.shape[1:]))
        self._boundary = replace(boundary, input=self.input, native=native)
        self._execution = Execution(self._gpu, context, native, outputs, room, fixed)

    def _batches(self, spec: TensorSpec) -> tuple[TensorSpec, int | None, int]:
        """Return the input as it runs here, the batch if it is fixed, and the largest batch."""
        own, asked, profile = spec.shape[0], self._options.batch, self._profile
        if profile is None or isinstance(own, int):
            own = int(own)
            if asked not in (None, own):
                raise InputError(f"{self._path}: its batch is fixed to {own}", f"use --batch {own}, or build it with --batches")
            return spec, own, own
        if asked is not None:
            check_profile(self._path, profile, asked)
        fixed = asked or (profile[0] if profile[0] == profile[2] else None)
        if fixed is None:
            return spec, None, profile[2]
        return replace(spec, shape=(fixed, *spec.shape[1:])), fixed, fixed

    def infer(self, batch: Float32Array) -> Float32Array:
        """Return the main output (N, ...) float32 of a batch (N, C, H, W) float32, or of what `to_native` returns.

        A failure of CUDA raises another EmcaError.
        """
        if self._execution is None:
            raise RuntimeError("infer on a runner that is not open")
        native = self._boundary.to_native(batch)
        check_profile(self._path, self._profile, len(batch))
        self._answers = self._execution.run(native)
        logits = self._boundary.to_logits(self._answers[self.output.name])
        check_logits(str(self._path), logits, batch)
        return logits

    def to_native(self, batch: Float32Array) -> npt.NDArray[Any]:
        """Return a batch (N, C, H, W) float32 in the type and layout of the engine's input."""
        return self._boundary.to_native(batch)

    def answers(self) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of the last `infer` that the task reads, by name."""
        return {name: self._answers[name] for name in self._boundary.places}

    def close(self) -> None:
        """Free the engine, then the memory it used."""
        self._execution = None
        self._answers = {}
        kept, self._kept = list(self._kept), ()
        while kept:
            kept.pop()  # first the context, then its engine, then its runtime
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def describe(self) -> dict[str, Any]:
        """Return version, GPU, whether calls replay a CUDA graph, the batch, and what the two times contain."""
        found: dict[str, Any] = {"runtime": self.backend, "version": self._version, "device": f"gpu:{self._device}"}
        if self._gpu is None or self._execution is None:
            return found
        return {
            **found,
            "gpu": to_json(self._gpu.facts),
            "cuda_graph": self._execution.captured,
            "batch": self.input.shape[0],
            "profile": list(self._profile) if self._profile else None,
            "host_time": "from the caller's array to logits in host memory, both copies included",
            "device_time": "CUDA events around the engine's work, copies excluded",
        }


class RtxRunner(TrtRunner):
    """Runs an engine of `RtxBuilder`, or an .onnx file, from which it builds an engine for this GPU first."""

    backend = "tensorrt-rtx"
    builder = RtxBuilder


def _context(trt: Any, engine: Any, *, rtx: bool) -> Any:
    """Return an execution context, or None where TensorRT cannot make one.

    TensorRT-RTX compiles kernels for a dynamic shape in the background and runs slower ones until then. A measurement, and a CUDA
    graph, which keeps the kernels it captured, need the final ones at once.
    """
    if not rtx:
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(config)
