"""The candidates: our placements and the peers, with their settings and runtimes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from emca_deploy._machine import cpu_info
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.harness.spec import RunnerSpec
from peers.quantizers import METHODS

__all__ = [
    "Candidate",
    "accuracy_candidates",
    "cost_candidates",
    "fp32",
    "installed",
    "ours",
    "recovery_default",
    "runtime_candidates",
]

SIMULATED = "ONNX Runtime, simulated"
"""Runtime of simulated models: Q/DQ pairs by ONNX's definition have the arithmetic of TensorRT or VNNI, not their kernels."""


@dataclass(frozen=True)
class Candidate:
    """A quantizer with its settings.

    Attributes:
        name: Name in the tables.
        method: Name in `quantizers.METHODS`.
        arguments: Arguments of that method.
        backend: Backend that runs its model: "openvino" or "onnxruntime".
        runs_in: Name of the backend in the table.
    """

    name: str
    method: str
    backend: str
    arguments: dict[str, Any] = field(default_factory=dict)
    runs_in: str = ""

    @property
    def where(self) -> str:
        """Name of the backend, for people."""
        return self.runs_in or {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[self.backend]

    def versions(self) -> dict[str, str | None]:
        """Return the versions of its libraries; None for one that is not installed."""
        return {name: installed(name) for name in METHODS[self.method].distributions}

    def missing(self) -> str | None:
        """Return the first of its libraries that is not installed, or None."""
        return next((name for name, found in self.versions().items() if found is None), None)

    def output(self, folder: Path) -> Path:
        """Return the path of its output in a folder."""
        stem = "".join(letter if letter.isalnum() else "-" for letter in self.name)
        return folder / f"{stem}{METHODS[self.method].suffix}"

    def spec(self, artifact: Path, threads: int, *, precision: str = "int8") -> RunnerSpec:
        """Return the harness's candidate that runs `artifact`."""
        shared = {"artifact": artifact.name, "backend": self.backend, "precision": precision}
        if artifact.suffix == ".xml":
            kwargs: dict[str, Any] = {"artifact": str(artifact), "threads": threads}
            return RunnerSpec(self.name, "peers.ir_runner:open_runner", kwargs, **shared)
        kwargs = {"backend": self.backend, "artifact": str(artifact), "threads": threads, "spin": False}
        if self.runs_in == SIMULATED:  # without VNNI, integer kernels would compute other values
            kwargs["settings"] = {"exact_qdq": True}
        return RunnerSpec(self.name, kwargs=kwargs, **shared)


def installed(distribution: str) -> str | None:
    """Return a distribution's version, or None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def recovery_default() -> str | None:
    """Return the default level of recovery, or None where calibration has none."""
    return next((str(option.default) for option in fields(CalibrationOptions) if option.name == "recover"), None)


def fp32(backend: str = "onnxruntime") -> Candidate:
    """Return the reference: the unquantized export."""
    return Candidate("fp32", "inference", backend)


def ours(backend: str, level: str | None, method: str = "auto") -> Candidate:
    """Return our placement for a backend with a level of recovery; None keeps the default."""
    arguments = {"backend": backend, "method": method} | ({"recover": level} if level else {})
    name = f"ours, {backend} placement" + (f", recover {level}" if level else "")
    if backend.startswith("tensorrt"):
        return Candidate(name, "ours", "onnxruntime", arguments, SIMULATED)
    return Candidate(name, "ours", backend, arguments)


def ours_on_cpu(backend: str, level: str | None) -> list[Candidate]:
    """Return our placement for a CPU backend; where this CPU needs 7 bits, also one with 8, simulated."""
    here = ours(backend, level)
    if not cpu_info().saturates_int8:
        return [here]
    return [
        here,
        Candidate(f"{here.name}, 8 bits", "ours", "onnxruntime", here.arguments | {"weight_bits": 8}, SIMULATED),
    ]


def nncf(preset: str) -> Candidate:
    """Return NNCF with a preset."""
    return Candidate(f"NNCF {preset}", "nncf", "openvino", {"preset": preset})


def ort(calibrate_method: str) -> Candidate:
    """Return ONNX Runtime's quantize_static with its other defaults."""
    return Candidate(
        f"quantize_static {calibrate_method}", "quantize_static", "onnxruntime", {"calibrate_method": calibrate_method}
    )


def ort_per_channel() -> Candidate:
    """Return quantize_static with the settings its documentation advises for x86: a scale per channel, unsigned activations."""
    arguments = {"calibrate_method": "MinMax", "per_channel": True, "activation_type": "QUInt8"}
    return Candidate("quantize_static MinMax, per channel, u8", "quantize_static", "onnxruntime", arguments)


def model_optimizer(method: str) -> Candidate:
    """Return Model Optimizer with a calibration method; the float part stays fp32."""
    arguments = {"calibration_method": method}
    return Candidate(f"Model Optimizer {method}", "model_optimizer", "onnxruntime", arguments, SIMULATED)


def accuracy_candidates(levels: Sequence[str | None]) -> list[Candidate]:
    """Return the candidates compared in accuracy, ours first for each runtime."""
    return [
        *(candidate for level in levels for candidate in ours_on_cpu("openvino", level)),
        nncf("MIXED"),
        nncf("PERFORMANCE"),
        *(candidate for level in levels for candidate in ours_on_cpu("onnxruntime", level)),
        *(ort(method) for method in ("MinMax", "Entropy", "Percentile")),
        ort_per_channel(),
        *(ours("tensorrt", level) for level in levels),
        model_optimizer("max"),
        model_optimizer("entropy"),
    ]


def runtime_candidates(backend: str, level: str | None) -> list[Candidate]:
    """Return the candidates compared in latency in a runtime; the first is ours, which the others are paired with."""
    peers = [nncf("MIXED"), nncf("PERFORMANCE")] if backend == "openvino" else [ort("MinMax"), ort_per_channel()]
    return [ours(backend, level), *peers, fp32(backend)]


def cost_candidates(levels: Sequence[str | None]) -> list[Candidate]:
    """Return the candidates whose calibration is timed: ours without recovery by two methods, ours with it, the peers."""
    plain = "none" if recovery_default() else None
    mine = [("minmax", plain), ("entropy", plain), *(("auto", level) for level in levels if level != plain)]
    return [
        *(_timed(method, level) for method, level in mine),
        nncf("MIXED"),
        *(ort(method) for method in ("MinMax", "Entropy", "Percentile")),
        model_optimizer("max"),
    ]


def _timed(method: str, level: str | None) -> Candidate:
    candidate = ours("openvino", level, method)
    name = f"ours, {method}" + (f", recover {level}" if level else "")
    return Candidate(name, candidate.method, candidate.backend, candidate.arguments)
