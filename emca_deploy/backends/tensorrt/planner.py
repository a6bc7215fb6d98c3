"""The plan of a TensorRT build, made before it starts: Q/DQ or cache, typed or flagged, or the reason why it is impossible."""

from dataclasses import dataclass
from typing import Any, Literal

from emca_deploy.artifacts import Precision
from emca_deploy.backends.tensorrt.model_facts import ModelFacts, half_refusal, qdq_refusal
from emca_deploy.backends.tensorrt.versions import TABLE
from emca_deploy.errors import InputError, ModelError
from emca_deploy.machines.boards import Board, JetPack, check_dla, check_jetpack, jetpacks_of, numbers_of
from emca_deploy.machines.nvidia import check_capability, check_hardware_precision

__all__ = ["Plan", "PlanRequest", "make_plan"]

Quantization = Literal["none", "qdq", "cache"]
Typing = Literal["typed", "flagged"]

OLDEST = (8, 0, 0)  # Q/DQ since 8.0: NVIDIA/TensorRT release notes of 8.0.1
TYPED_SINCE = (10, 0, 0)
UNFLAGGED_SINCE = (11, 0, 0)

# Sources: onnx-tensorrt, docs/operators.md of the branches 8.0-GA to 10.0-GA ("supports operators up to Opset N", from 10.0 on
# "in the inclusive range of opset 9 to opset N") and of 10.15; for 11.x NVIDIA's ONNX opset guide. The versions between 10.1-GA,
# which still has 20, and 10.15 are not documented.
OPSETS: tuple[tuple[tuple[int, int], int], ...] = (
    ((8, 0), 13), ((8, 4), 17), ((9, 0), 19), ((10, 0), 20), ((10, 15), 24), ((11, 0), 25),
)  # fmt: skip

LOWEST_CONVERTED = 14
"""The lowest opset that onnx 1.23 converts this package's networks to: below it there is no adapter for Relu."""


@dataclass(frozen=True)
class PlanRequest:
    """The build to plan.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        device: Board that runs the engine.
        version: Version of TensorRT that builds it; None takes the JetPack's.
        jetpack: JetPack of the board, if known.
        dla: Whether a DLA core runs it, with the GPU for layers that the DLA does not support.
        precision: Precision of the convolutions.
    """

    backend: str
    device: Board
    version: str | None = None
    jetpack: JetPack | None = None
    dla: bool = False
    precision: Precision = "int8"


@dataclass(frozen=True)
class Plan:
    """How to build it.

    Attributes:
        version: Version of TensorRT, three numbers.
        quantization: Source of INT8.
        typing: "typed" if every type is the model's, "flagged" if builder flags allow types.
        calibrate_for: Backend whose recipe the model must be calibrated for; None if no calibration is needed.
        needs_half: Whether a typed fp16 model must be exported first.
        flags: Flags of network and builder, by TensorRT's names.
    """

    request: PlanRequest
    version: tuple[int, int, int]
    quantization: Quantization
    typing: Typing
    calibrate_for: str | None
    needs_half: bool
    flags: tuple[str, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def version_text(self) -> str:
        """The version as text: "10.3.0"."""
        return ".".join(map(str, self.version))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan's part of the JSON document of `plan`."""
        request = self.request
        return {
            "backend": request.backend,
            "tensorrt_version": self.version_text,
            "device": request.device.name,
            "compute_capability": request.device.capability,
            "jetpack": request.jetpack.version if request.jetpack else None,
            "dla": request.dla,
            "precision": request.precision,
            "quantization": self.quantization,
            "typing": self.typing,
            "calibrate_for": self.calibrate_for,
            "builder_flags": list(self.flags),
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
        }


def make_plan(model: ModelFacts, request: PlanRequest) -> Plan:
    """Choose how to build a model.

    Raises:
        InputError: version, device, DLA and precision exclude each other, or the version is unknown.
        ModelError: the model does not fit the request.
    """
    version = _version(request)
    check_capability(request.backend, version, request.device)
    check_hardware_precision(request.device, request.precision)
    _check_rtx(request)
    if request.dla:
        check_dla(version, request.device, request.jetpack, request.precision)
    elif request.backend == "tensorrt-rtx" and request.jetpack:
        raise InputError("TensorRT-RTX does not support Jetson boards", "use --backend tensorrt")
    _check_model(model, request)
    # A DLA needs builder flags until 10.7; from 11 on there are none.
    typed = request.backend == "tensorrt-rtx" or version >= UNFLAGGED_SINCE or (version >= TYPED_SINCE and not request.dla)
    typing: Typing = "typed" if typed else "flagged"
    if model.half_scales and typing == "flagged":
        raise half_refusal(model.path)
    quantization: Quantization = "none" if request.precision != "int8" else ("cache" if request.dla else "qdq")
    if quantization == "cache" and request.version is not None and request.version.count(".") < 2 and version[0] < 10:
        raise InputError(
            f"--tensorrt-version {request.version}: a calibration cache needs three numbers",
            f"give them, such as {request.version}.1",
        )
    calibrate_for = request.backend if quantization == "cache" or (quantization == "qdq" and model.precision != "int8") else None
    needs_half = request.precision == "fp16" and model.precision == "fp32" and (typing == "typed" or not request.dla)
    return Plan(
        request, version, quantization, typing, calibrate_for, needs_half,
        _flags(request, typing, quantization, version),
        tuple(_reasons(request, version, typing, quantization)),
        tuple(_warnings(model, request, version)),
    )  # fmt: skip


def _version(request: PlanRequest) -> tuple[int, int, int]:
    if request.jetpack is not None:
        check_jetpack(request.jetpack, request.device)
    text = request.version or (request.jetpack.tensorrt if request.jetpack else None)
    if text is None:
        fitting = jetpacks_of(request.device)
        ways = f"--jetpack ({', '.join(fitting)}), or --tensorrt-version" if fitting else "--tensorrt-version"
        raise InputError(f"the version of {request.backend} that builds for {request.device.title} is unknown", f"give {ways}")
    version = numbers_of(text)
    oldest = OLDEST if request.backend == "tensorrt" else next((*first, 0) for name, first, _ in TABLE if name == request.backend)
    newest = 12 if request.backend == "tensorrt" else 2
    if not oldest <= version < (newest, 0, 0):
        known = f"{oldest[0]}.{oldest[1]} to {newest - 1}.x"
        raise InputError(f"--tensorrt-version {text}: {request.backend} {text} is not supported", f"supported: {known}")
    return version


def _check_rtx(request: PlanRequest) -> None:
    if request.backend != "tensorrt-rtx":
        return
    if request.dla:
        raise InputError("TensorRT-RTX has no DLA", "use --backend tensorrt on a Jetson board")
    if request.device.capability == "7.5" and request.precision != "fp16":
        # 1.7.1 reports "FP32 GEMM is not supported" for the classifier's head, which int8 models have in float, too.
        raise InputError(
            "tensorrt-rtx has no float32 matrix product for sm_75 (Turing), which the model's last layer needs",
            "use --backend tensorrt",
        )


def _check_model(model: ModelFacts, request: PlanRequest) -> None:
    """Refuse a model whose types are not those that the build starts from."""
    again = f"emca-deploy calibrate the fp32 model with --backend {request.backend}"
    for nodes, problem in (
        (model.int32, "dequantizes an INT32 bias, which TensorRT's parser refuses"),
        (model.uint8, "has a uint8 zero point, which TensorRT reads as int8 and computes other numbers"),
        (model.asymmetric, "has a zero point other than 0, and TensorRT's INT8 is symmetric"),
    ):
        if nodes:
            raise ModelError(f"{model.path}: node '{nodes[0]}' {problem}", again)
    if model.precision == "int8" and request.dla:
        raise qdq_refusal(model.path, "DLA")
    if model.precision == "int8" and request.precision != "int8":
        raise ModelError(
            f"{model.path}: has Q/DQ, which --precision {request.precision} excludes", "name the fp32 model, or plan for int8"
        )
    if model.precision == "fp16" and request.precision != "fp16":
        way = "calibrate the fp32 model it was made from" if request.precision == "int8" else "name the fp32 model"
        raise ModelError(f"{model.path}: is fp16, and --precision {request.precision} needs an fp32 model", way)


def _flags(request: PlanRequest, typing: Typing, quantization: Quantization, version: tuple[int, int, int]) -> tuple[str, ...]:
    flags = ["GPU_FALLBACK"] if request.dla else []
    if typing == "typed":
        return (*flags, *(() if request.backend == "tensorrt" and version >= UNFLAGGED_SINCE else ("STRONGLY_TYPED",)))
    if quantization != "none":
        flags.append("INT8")
    if request.dla or request.precision == "fp16":
        flags.append("FP16")
    return tuple(flags)


def _reasons(request: PlanRequest, version: tuple[int, int, int], typing: Typing, quantization: Quantization) -> list[str]:
    name = f"{request.backend} {'.'.join(map(str, version))}"
    reasons = []
    if request.jetpack is not None:
        own = numbers_of(request.jetpack.tensorrt)
        brings = f"JetPack {request.jetpack.version} brings TensorRT {request.jetpack.tensorrt}"
        reasons.append(brings if own == version else f"{brings}; {name} is requested instead")
    reasons.append(
        {
            "none": f"{request.precision}: no calibration is needed",
            "qdq": "Q/DQ: every version since 8.0 accepts it, from 11 on only that; this package chooses ranges and placement",
            "cache": "calibration cache: until TensorRT 10.7 a DLA accepts no Q/DQ, only implicit INT8",
        }[quantization]
    )
    if request.dla:
        reasons.append("GPU fallback: global poolings, which attention uses, are not offered to a DLA")
    if typing == "typed":
        gone = version >= UNFLAGGED_SINCE and request.backend == "tensorrt"
        reasons.append(f"typed: {'11 has no precision flags' if gone else 'every layer computes in the type of the model'}")
    elif request.dla:
        reasons.append("flagged: a DLA takes its types from the flags INT8 and FP16, not from the model; it has no fp32")
    else:
        reasons.append(f"flagged: {name} is too old for strongly typed networks, which need 10.0 or newer")
    return reasons


def _warnings(model: ModelFacts, request: PlanRequest, version: tuple[int, int, int]) -> list[str]:
    warnings = []
    if request.jetpack is not None and not request.jetpack.certain and request.version is None:
        warnings.append(
            f"it is not certain that JetPack {request.jetpack.version} has TensorRT {request.jetpack.tensorrt}: "
            "check with `dpkg -l libnvinfer*` and give --tensorrt-version"
        )
    if request.backend == "tensorrt":
        newest = next(opset for first, opset in reversed(OPSETS) if version[:2] >= first)
        if model.opset > newest:
            warnings.append(
                f"the model has opset {model.opset}, tensorrt {version[0]}.{version[1]} supports {newest}: if its parser "
                f"fails, convert with onnx.version_converter.convert_version(model, {max(newest, LOWEST_CONVERTED)})"
            )
    if request.dla and model.off_dla:
        warnings.append(
            f"{model.off_dla} global poolings run on the GPU, and each splits the DLA's part; "
            "a core holds at most 16 parts (loadables)"
        )
    if request.dla and model.selections:
        warnings.append(
            "no DLA selects boxes: the GPU does, after a copy; a detector exported with --part dense leaves that to the host"
        )
    return warnings
