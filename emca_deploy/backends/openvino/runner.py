"""OpenVINO on the CPU."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import Runner, RunOptions, check_logits, named_shape, refuse_precision
from emca_deploy.backends.boundary import Boundary, graph_facts
from emca_deploy.backends.engines import EngineBuilder, engine_io, identify, verify_engine
from emca_deploy.errors import EngineError, ModelError
from emca_deploy.onnx_file.refusal import library_reason, refusal

__all__ = ["OvBuilder", "OvRunner", "load_compiled"]

BACKEND = "openvino"
DEVICE = "CPU"
PRECISIONS = ("f32", "bf16", "f16")
PRECISION = "INFERENCE_PRECISION_HINT"
PROPERTIES = {
    "streams": "NUM_STREAMS",
    "hint": "PERFORMANCE_HINT",
    "pinning": "ENABLE_CPU_PINNING",
    "hyper_threading": "ENABLE_HYPER_THREADING",
    "core_type": "SCHEDULING_CORE_TYPE",
    "flush_denormals": "CPU_DENORMALS_OPTIMIZATION",
}
"""OpenVINO's names of settings, by this package's names."""


def _config(options: RunOptions, precision: str) -> dict[str, Any]:
    # OpenVINO does not choose the precision: with AVX512_BF16 it picks bf16, less exact and on some processors slower by half.
    return {
        PRECISION: precision,
        "INFERENCE_NUM_THREADS": options.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        **{PROPERTIES[name]: value for name, value in options.settings.items()},
    }


def port_specs(ports: Any) -> list[TensorSpec]:
    """Return OpenVINO's inputs or outputs as specs; a dynamic size has a name."""
    specs = []
    for port in ports:
        shape = port.partial_shape
        sizes = [] if shape.rank.is_dynamic else [int(dim.get_length()) if dim.is_static else -1 for dim in shape]
        dtype = np.dtype(port.element_type.to_dtype()).name
        specs.append(TensorSpec(port.any_name if port.names else "", dtype, named_shape(sizes)))
    return specs


def compile_onnx(ov: Any, path: Path, options: RunOptions, more: Mapping[str, Any] | None = None) -> tuple[Any, Boundary]:
    """Return the compiled model of an .onnx file and the boundary to its input and output; dynamic sizes are fixed as requested.

    `more` holds further properties, by OpenVINO's names.

    Raises:
        ModelError: OpenVINO does not accept the model, or it is not a classifier.
        InputError: the model's batch or image size is fixed to another one.
    """
    io = graph_facts(path, options.io)
    try:
        core = ov.Core()
        model = core.read_model(_readable(path))
        boundary = Boundary.of(path, port_specs(model.inputs), port_specs(model.outputs), io)
        boundary.overrides(path, options.batch, io.image_size)
        shape = model.inputs[0].partial_shape
        if options.batch is not None:
            shape[0] = ov.Dimension(options.batch)
        if io.image_size is not None:
            first = 1 if boundary.channels_last else 2
            shape[first], shape[first + 1] = (ov.Dimension(size) for size in io.image_size)
        if options.batch is not None or io.image_size is not None:
            model.reshape({model.inputs[0]: shape})
        compiled = core.compile_model(model, DEVICE, {**_config(options, options.precision), **(more or {})})
    except RuntimeError as exc:
        raise refusal(str(path), "OpenVINO", exc) from exc
    return compiled, Boundary.of(path, port_specs(compiled.inputs), port_specs(compiled.outputs), io)


def _readable(path: Path) -> str | BytesIO:
    """Return the path to give to OpenVINO, or the model's bytes where a link leads to it and its weights are in another file.

    OpenVINO follows the link and looks for the weights next to its target, where Hugging Face's cache has none.
    """
    if not path.is_symlink() or find_spec("onnx") is None:
        return str(path)
    from emca_deploy.onnx_file.file import OnnxFile

    file = OnnxFile.open(path)
    return BytesIO(file.load_proto().SerializeToString()) if file.linked else str(path)


def load_compiled(path: Path, options: RunOptions, more: Mapping[str, Any] | None = None) -> tuple[Any, Boundary]:
    """Return the compiled model of an .onnx file or an engine, and the boundary to its input and output.

    `more` holds further properties, by OpenVINO's names.

    Raises:
        InputError, ModelError, EngineError: the file cannot run here.
        MissingError: OpenVINO is not installed.
    """
    refuse_precision(BACKEND, options.precision, PRECISIONS)
    ov = import_optional("openvino")
    manifest = identify(path, BACKEND)
    if manifest is None:
        return compile_onnx(ov, path, options, more)
    verify_engine(path, manifest, (BACKEND, ov.__version__))
    precision = str(manifest.details.get("inference_precision", "f32"))
    try:
        properties = {**_config(options, precision), **(more or {})}
        compiled = ov.Core().import_model(path.read_bytes(), DEVICE, properties)
    except RuntimeError as exc:
        raise EngineError(
            f"{path}: OpenVINO does not load it: {library_reason(exc)}", f"build it again here with --backend {BACKEND}"
        ) from exc
    io = engine_io(manifest, options.io)
    boundary = Boundary.of(path, port_specs(compiled.inputs), port_specs(compiled.outputs), io)
    boundary.overrides(path, options.batch, io.image_size)
    return compiled, boundary


class OvRunner(Runner):
    """Runs an .onnx file or an engine of `OvBuilder` on the CPU."""

    def __init__(self, artifact: str, options: RunOptions) -> None:
        self._path = Path(artifact)
        self._options = options
        self._precision = options.precision
        self._compiled: Any = None
        self._request: Any = None
        self._bound: npt.NDArray[Any] | None = None
        self._queue: Any = None
        self._latencies_ns: list[int] = []

    def open(self) -> None:
        """Load the model, and set `input` and `output`."""
        compiled, boundary = load_compiled(self._path, self._options)
        self._boundary = boundary
        self.input, self.output, self.softmax = boundary.input, boundary.output, boundary.softmax
        self.task, self._main = boundary.task, boundary.places[boundary.output.name]
        self._precision = compiled.get_property(PRECISION).to_string()  # many CPUs run bf16 where f16 is requested
        self._compiled, self._request = compiled, compiled.create_infer_request()
        self._tensor = import_optional("openvino").Tensor

    def infer(self, batch: npt.NDArray[Any]) -> Float32Array:
        """Return the main output (N, ...) float32 of a batch, as `Runner.infer` does; the result is a view into the runtime."""
        # The array of the last call is still bound as shared memory: OpenVINO sees what was written into it since.
        if batch is not self._bound or not self._boundary.is_plain:
            self._bind(batch)
        try:
            self._request.infer(share_outputs=True)
        except RuntimeError as exc:
            raise ModelError(
                f"{self._path}: fails while running: {library_reason(exc)}", "try --batch 1, or another backend"
            ) from exc
        logits = self._boundary.to_logits(self._request.get_output_tensor(self._main).data)
        check_logits(str(self._path), logits, batch)
        return logits

    def answers(self) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of the last `infer` by name; they are views into the runtime."""
        return {name: self._request.get_output_tensor(place).data for name, place in self._boundary.places.items()}

    def _bind(self, batch: npt.NDArray[Any]) -> None:
        if self._request is None:
            raise RuntimeError("infer on a runner that is not open")
        # Shared memory must be contiguous and writable. A copy made here is not the caller's array, so it is bound again.
        shared = np.require(self._boundary.to_native(batch), requirements=["C", "A", "W"])
        self._request.set_input_tensor(self._tensor(shared, shared_memory=True))
        self._bound = shared

    def start_offline(self, batch: npt.NDArray[Any]) -> int:
        """Compile the model again, for throughput, and return the number of requests in flight.

        OpenVINO chooses the streams, unless the settings do.

        Raises:
            InputError: the batch's shape or dtype does not fit the model.
            ModelError, EngineError: the model cannot be compiled again.
        """
        native = self._boundary.to_native(batch)
        self.close()
        settings = {"hint": "THROUGHPUT", "streams": "AUTO", **self._options.settings}
        self._options = replace(self._options, settings=settings)
        self.open()
        self._queue = import_optional("openvino").AsyncInferQueue(self._compiled)  # with the model's optimal number of requests
        self._offline_input = np.require(native, requirements=["C", "A", "W"])
        for request in self._queue:
            request.set_input_tensor(self._tensor(self._offline_input, shared_memory=True))
        self._queue.set_callback(self._completed)
        return len(self._queue)

    def run_offline(self, seconds: float, min_calls: int, max_calls: int) -> npt.NDArray[np.int64]:
        """Keep all requests in flight; see `harness.spec.Saturable.run_offline`."""
        if self._queue is None:
            raise RuntimeError("start_offline comes first")
        self._latencies_ns = []
        started = 0
        end_ns = perf_counter_ns() + int(seconds * 1e9)
        try:
            while started < min_calls or (started < max_calls and perf_counter_ns() < end_ns):
                self._queue.get_idle_request_id()  # waits for an idle request: the latency of the next one excludes that wait
                self._queue.start_async(userdata=perf_counter_ns())
                started += 1
            self._queue.wait_all()
        except RuntimeError as exc:
            raise ModelError(
                f"{self._path}: fails while running: {library_reason(exc)}", "try another batch, or another backend"
            ) from exc
        return np.array(self._latencies_ns, dtype=np.int64)

    def _completed(self, _: Any, started_ns: int) -> None:
        self._latencies_ns.append(perf_counter_ns() - started_ns)

    def to_native(self, batch: Float32Array) -> npt.NDArray[Any]:
        """Return a batch (N, C, H, W) float32 in the model's own layout and type."""
        return self._boundary.to_native(batch)

    def close(self) -> None:
        """Free the compiled model."""
        # A queue that is deleted while its last callback returns holds the interpreter's lock and waits for it: a deadlock.
        for request in self._queue or ():
            with suppress(RuntimeError):
                request.wait()
        self._queue = self._request = self._compiled = self._bound = None

    def describe(self) -> dict[str, Any]:
        """Return version, device, precision, threads and the batch the model runs at."""
        ov = import_optional("openvino")
        return {
            "runtime": BACKEND,
            "version": ov.__version__,
            "device": DEVICE,
            "inference_precision": self._precision,
            "threads": self._options.threads,
            **({"settings": dict(self._options.settings)} if self._options.settings else {}),
            "batch": self.input.shape[0] if self._compiled is not None else self._options.batch,
        }


class OvBuilder(EngineBuilder):
    """Compiles an .onnx file and exports the compiled model as one file."""

    backend = BACKEND

    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the compiled model, and return the runtime's name and version."""
        refuse_precision(BACKEND, options.precision, PRECISIONS)
        ov = import_optional("openvino")
        compiled, _ = compile_onnx(ov, model, options)
        output.write_bytes(compiled.export_model().getvalue())
        return BACKEND, ov.__version__
