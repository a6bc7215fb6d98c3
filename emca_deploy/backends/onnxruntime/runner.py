"""ONNX Runtime on the CPU, and on an NVIDIA GPU where its CUDA provider is installed."""

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from emca_deploy._machine import EXACT_INT8, CpuInfo, cpu_info
from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec, read_manifest
from emca_deploy.backends.base import Runner, RunOptions, check_logits, refuse_precision
from emca_deploy.backends.boundary import Boundary, graph_facts
from emca_deploy.backends.engines import EngineBuilder, engine_io, identify, verify_engine
from emca_deploy.errors import InputError, MissingError, ModelError
from emca_deploy.onnx_file.refusal import library_reason, refusal

__all__ = ["OrtBuilder", "OrtRunner", "library_errors", "load_session", "needs_exact_sums", "open_inference_session"]

BACKEND = "onnxruntime"
ERRORS_ONLY = 3
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SESSION_ENTRIES = {
    "force_spinning_stop": "session.force_spinning_stop",
    "flush_denormals": "session.set_denormal_as_zero",
    "exact_qdq": "session.disable_quant_qdq",
    "fastmath_bf16": "mlas.enable_gemm_fastmath_arm64_bfloat16",
}
"""ONNX Runtime's names of settings, by this package's names."""

BATCH_NAME = "batch"  # the exporter's name of the dynamic dimension
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8"}


def library_errors(ort: Any) -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's exception classes, which have no common base class."""
    state = ort.capi.onnxruntime_pybind11_state
    own = (getattr(state, name) for name in dir(state))
    return (RuntimeError, *(kind for kind in own if isinstance(kind, type) and issubclass(kind, Exception)))


def _session_options(ort: Any, options: RunOptions, *, exact_sums: bool) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = ERRORS_ONLY
    level = str(options.settings.get("graph_optimization", "all")).upper()
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    if options.settings.get("execution_mode") == "parallel":
        settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        settings.inter_op_num_threads = options.threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spin else "0")
    for name, entry in SESSION_ENTRIES.items():
        if name in options.settings:
            settings.add_session_config_entry(entry, "1" if options.settings[name] else "0")
    settings.add_session_config_entry("session.x64quantprecision", "1" if exact_sums else "0")
    # By default the suffix decides, which is up to the user here.
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    settings.add_session_config_entry("session.save_model_format", "ONNX")
    return settings


def needs_exact_sums(weight_bits: int | None, cpu: CpuInfo) -> bool:
    """Return whether ONNX Runtime must be asked for exact sums of products of uint8 and int8.

    Without VNNI they are summed in 16 bits, which overflow unless weights keep to 7 bits: the bundled model has 13 dB then, and
    45 dB with exact sums. On processors with AMX exact sums take twice the time, and change nothing.
    """
    return weight_bits != 7 and not EXACT_INT8 & set(cpu.instruction_sets)


def _specs(nodes: Any) -> list[TensorSpec]:
    return [
        TensorSpec(
            node.name,
            DTYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else (size or "?") for size in node.shape),
        )
        for node in nodes
    ]


def _providers(ort: Any, device: int | None) -> list[Any]:
    """Return the execution providers of a session: the CPU's, after a GPU's if one is requested."""
    if device is None:
        return [CPU]
    if CUDA not in ort.get_available_providers():
        raise MissingError(
            f"this ONNX Runtime {ort.__version__} has no CUDA provider",
            "pip uninstall onnxruntime && pip install onnxruntime-gpu, or use --backend tensorrt-rtx",
        )
    if hasattr(ort, "preload_dlls"):  # the system's loader does not look where the wheels of CUDA and cuDNN are
        with redirect_stdout(sys.stderr):  # it prints the libraries it does not find
            ort.preload_dlls()
    return [(CUDA, {"device_id": device}), CPU]


def open_inference_session(
    path: Path,
    options: RunOptions,
    save_to: Path | None = None,
    device: int | None = None,
    profile_to: Path | None = None,
) -> tuple[Any, Boundary]:
    """Return a session and the boundary to its input and output; dynamic sizes are fixed as `options` says.

    `device` is a GPU's index, or None for the CPU; the optimised graph is written to `save_to`; `profile_to` is the beginning of
    the profile's file name.

    Raises:
        MissingError: this ONNX Runtime cannot use the GPU.
        ModelError: ONNX Runtime does not accept the model, or it is not a classifier.
        InputError: the model's batch or image size is fixed to another one.
    """
    ort = import_optional("onnxruntime")
    refuse_precision(BACKEND, options.precision)
    providers = _providers(ort, device)
    io = graph_facts(path, options.io)
    manifest = read_manifest(path, verify=False)
    exact_sums = needs_exact_sums(manifest.details.get("weight_bits") if manifest is not None else None, cpu_info())
    sizes = {} if options.batch is None else {BATCH_NAME: options.batch}
    for _ in range(3):
        settings = _session_options(ort, options, exact_sums=exact_sums)
        if save_to is not None:
            settings.optimized_model_filepath = str(save_to)
        if profile_to is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile_to)
        for name, size in sizes.items():
            settings.add_free_dimension_override_by_name(name, size)
        try:
            session = ort.InferenceSession(str(path), settings, providers=providers)
        except library_errors(ort) as exc:
            if not exact_sums:
                raise refusal(str(path), "ONNX Runtime", exc) from exc
            exact_sums = False  # ONNX Runtime 1.32 cannot rewrite every model for them, such as some of `quantize_static`
            continue
        boundary = Boundary.of(path, _specs(session.get_inputs()), _specs(session.get_outputs()), io)
        wanted = boundary.overrides(path, options.batch, io.image_size)
        if all(sizes.get(name) == size for name, size in wanted.items()):
            break
        sizes |= wanted  # another exporter names the dimensions otherwise: open the model again with its own names
    if device is not None and session.get_providers()[0] != CUDA:  # ONNX Runtime only warns, and runs on the CPU
        raise MissingError(
            f"ONNX Runtime {ort.__version__} cannot use GPU {device}", "install the CUDA and cuDNN that its release notes name"
        )
    return session, boundary if io.image_size is None else boundary.at(*io.image_size)


def load_session(
    path: Path, options: RunOptions, device: int | None = None, profile_to: Path | None = None
) -> tuple[Any, Boundary]:
    """Return the session of an .onnx file or an engine, which runs on the CPU only, and the boundary to its input and output.

    Raises:
        InputError, ModelError, EngineError: the file cannot run here.
        MissingError: ONNX Runtime is not installed, or cannot use the GPU.
    """
    ort = import_optional("onnxruntime")
    manifest = identify(path, BACKEND)
    if manifest is not None:
        if device is not None:
            raise InputError(f"{path}: is an engine for the CPU", "name the .onnx file, or an engine of TensorRT")
        verify_engine(path, manifest, (BACKEND, ort.__version__))
        options = replace(options, io=engine_io(manifest, options.io))
    return open_inference_session(path, options, device=device, profile_to=profile_to)


class OrtRunner(Runner):
    """Runs an .onnx file, on the CPU (`device` None) or a GPU (its index), or an engine of `OrtBuilder`, on the CPU."""

    def __init__(self, artifact: str, options: RunOptions, device: int | None = None) -> None:
        self._device = device
        self._path = Path(artifact)
        self._options = options
        self._session: Any = None
        self._answers: list[npt.NDArray[Any]] = []

    def open(self) -> None:
        """Load the model, and set `input` and `output`."""
        self._session, self._boundary = load_session(self._path, self._options, self._device)
        self.input, self.output, self.softmax = self._boundary.input, self._boundary.output, self._boundary.softmax
        self._errors = library_errors(import_optional("onnxruntime"))
        self.task = self._boundary.task
        self._outputs = list(self._boundary.places)
        self._main = self._outputs.index(self.output.name)
        self._name = self.input.name

    def infer(self, batch: npt.NDArray[Any]) -> Float32Array:
        """Return the main output (N, ...) float32 of a batch (N, C, H, W) float32, or of what `to_native` returns."""
        if self._session is None:
            raise RuntimeError("infer on a runner that is not open")
        native = self._boundary.to_native(batch)
        self._answers = []  # those of the last call are freed before the next ones are made
        try:
            self._answers = self._session.run(self._outputs, {self._name: native})
            logits = self._boundary.to_logits(self._answers[self._main])
        except self._errors as exc:
            raise ModelError(
                f"{self._path}: fails while running: {library_reason(exc)}", "try --batch 1, or another backend"
            ) from exc
        check_logits(str(self._path), logits, batch)
        return logits

    def answers(self) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of the last `infer` by name."""
        return dict(zip(self._outputs, self._answers, strict=True))

    def to_native(self, batch: Float32Array) -> npt.NDArray[Any]:
        """Return a batch (N, C, H, W) float32 in the model's own layout and type."""
        return self._boundary.to_native(batch)

    def close(self) -> None:
        """Free the session and the outputs of its last call."""
        self._session = None
        self._answers = []

    def describe(self) -> dict[str, Any]:
        """Return version, provider, threads and the batch the model runs at."""
        ort = import_optional("onnxruntime")
        return {
            "runtime": BACKEND,
            "version": ort.__version__,
            "provider": CPU if self._device is None else CUDA,
            **({} if self._device is None else {"device": f"gpu:{self._device}"}),
            "threads": self._options.threads,
            "spin": self._options.spin,
            **({"settings": dict(self._options.settings)} if self._options.settings else {}),
            "batch": self.input.shape[0] if self._session is not None else self._options.batch,
        }


class OrtBuilder(EngineBuilder):
    """Optimises an .onnx file offline, with fusions and this processor's layouts, which makes loading quicker."""

    backend = BACKEND

    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the optimised graph, and return the runtime's name and version."""
        open_inference_session(model, options, save_to=output)
        return BACKEND, import_optional("onnxruntime").__version__
