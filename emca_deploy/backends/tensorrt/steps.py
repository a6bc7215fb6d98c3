"""The commands that carry out a plan."""

from dataclasses import dataclass
from pathlib import Path

from emca_deploy._text import shell_line
from emca_deploy.backends.tensorrt.model_facts import ModelFacts
from emca_deploy.backends.tensorrt.planner import Plan
from emca_deploy.backends.tensorrt.tool.dialects import EngineShapes, TrtexecBuild, boundary_options, build_options
from emca_deploy.backends.tensorrt.versions import TABLE

__all__ = ["Step", "can_build", "list_steps", "trtexec_command"]

JETSON_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # its path in JetPack's packages
OLDEST_PYTHON = (3, 10)
LARGEST_BATCH = 64


@dataclass(frozen=True)
class Step:
    """A command, and the machine to run it on: `where` is "here" or "on the device"."""

    where: str
    command: str


def list_steps(plan: Plan, model: ModelFacts, data: Path | None = None) -> list[Step]:
    """Return the commands of emca-deploy in order; the build only if emca-deploy can build on that machine."""
    steps = []
    if plan.needs_half:
        export = ["emca-deploy", "export", "CHECKPOINT", "--precision", "fp16", *model.export_options]
        steps.append([*export, "-o", str(_sibling(model.path, "fp16.onnx"))])
    if plan.calibrate_for is not None:
        steps.append(_calibrate(plan, model, str(data) if data else "CALIBRATION_IMAGES"))
    listed = [Step("here", shell_line(step)) for step in steps]
    if can_build(plan):
        place = "here" if plan.request.backend == "tensorrt-rtx" else "on the device"
        listed.append(Step(place, shell_line(_build(plan, model))))
    return listed


def can_build(plan: Plan) -> bool:
    """Return whether the TensorRT and Python of the machine that builds the engine are new enough for emca-deploy's builder."""
    oldest = min(first for name, first, _ in TABLE if name == plan.request.backend)
    pack = plan.request.jetpack
    python = tuple(int(part) for part in (pack.python if pack else "3.10").split("."))
    return plan.version[:2] >= oldest and python >= OLDEST_PYTHON


def trtexec_command(plan: Plan, model: ModelFacts, float_layers: tuple[str, ...] = ()) -> str | None:
    """Return the trtexec command that builds and times the engine without emca-deploy, or None: TensorRT-RTX has no trtexec.

    `boundary_options` explains what is timed. `float_layers` stay fp16 where INT8 comes from a calibration cache.
    """
    request = plan.request
    if request.backend != "tensorrt":
        return None
    largest = 1 if request.dla else LARGEST_BATCH
    build = TrtexecBuild(
        onnx=_input_file(plan, model).name,
        engine=_sibling(model.path, "engine").name,
        typed=plan.typing == "typed",
        int8="INT8" in plan.flags,
        fp16="FP16" in plan.flags,
        shapes=EngineShapes(model.input.name, tuple(map(int, model.input.shape[1:])), (1, 1, largest)) if model.dynamic else None,
        cache=_sibling(model.path, "cache").name if plan.quantization == "cache" else None,
        float_layers=float_layers,
        dla_core=0 if request.dla else None,
    )
    tool = JETSON_TRTEXEC if request.device.is_jetson else "trtexec"
    options = [*build_options(plan.version, build), *boundary_options(plan.version, dla=request.dla), "--exposeDMA"]
    return shell_line([tool, *options])


def _calibrate(plan: Plan, model: ModelFacts, data: str) -> list[str]:
    backend = str(plan.calibrate_for)
    output = _sibling(model.path, f"{backend}.onnx")
    command = ["emca-deploy", "calibrate", str(model.path), "--data", data, "--backend", backend, "-o", str(output)]
    if plan.quantization == "cache":
        command += ["--cache", str(_sibling(model.path, "cache")), "--tensorrt-version", plan.version_text, "--recover", "none"]
    return command


def _build(plan: Plan, model: ModelFacts) -> list[str]:
    backend = plan.request.backend
    source, engine = _input_file(plan, model), _sibling(model.path, "engine")
    if backend == "tensorrt-rtx":
        capability = ["--target-capability", plan.request.device.capability]
        return ["emca-deploy", "build", str(source), "--backend", backend, "-o", str(engine), *capability]
    command = ["emca-deploy", "build", source.name, "--backend", backend, "-o", engine.name]
    if plan.quantization == "cache":
        command += ["--calibration-cache", _sibling(model.path, "cache").name]
    if plan.request.dla:
        command += ["--dla-core", "0", *(["--batch", "1"] if model.dynamic else [])]
    return command


def _input_file(plan: Plan, model: ModelFacts) -> Path:
    """Return the model that the engine is built from."""
    if plan.needs_half:
        return _sibling(model.path, "fp16.onnx")
    if plan.quantization == "qdq" and plan.calibrate_for is not None:
        return _sibling(model.path, f"{plan.calibrate_for}.onnx")
    return model.path


def _sibling(path: Path, suffix: str) -> Path:
    """Return the path of a file next to the model: "net.onnx" and "cache" give "net.cache"."""
    return path.with_name(f"{path.stem}.{suffix}")
