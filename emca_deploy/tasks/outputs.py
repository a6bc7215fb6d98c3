"""The outputs of a graph that are read: a classifier's logits, or a detector's boxes, scores, labels and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.artifacts import TensorSpec
from emca_deploy.errors import ModelError, UnknownNameError
from emca_deploy.onnx_file.header import dtype_name
from emca_deploy.requests import TaskName

if TYPE_CHECKING:
    import onnx

__all__ = [
    "DETECTOR",
    "MASKS",
    "SCORES",
    "LogitsOutput",
    "ReadOutputs",
    "choose_output",
    "choose_outputs",
    "classifier_logits",
    "find_logits",
    "task_of",
]

DETECTOR = ("num_detections", "boxes", "scores", "labels")
"""Outputs of a detector for at most D detections: (N,), (N, D, 4), (N, D) and (N, D); one may have `MASKS` too."""

MASKS = "masks"
SCORES = "scores"

DENSE_SCORES = ("logits_p", "objectness_p")
DELTAS = "deltas_p"
"""Beginnings of the names of a dense part's outputs for each level, such as "deltas_p3"; an R-CNN has levels "p2" to "p5" too."""

SHAPING = frozenset({"Identity", "Flatten", "Reshape", "Squeeze", "Cast", "Dropout"})
"""Operators that move or convert logits, and keep their order."""

FLOATS = ("float32", "float16", "float64")


@dataclass(frozen=True)
class LogitsOutput:
    """The logits of a graph.

    Attributes:
        name: Name of the output that is read.
        classes: Number of classes; None if unknown.
        softmax: Whether a Softmax ends the graph, and the output holds probabilities.
        tensor: Name of the tensor with the logits: the Softmax's input, or the output itself.
    """

    name: str
    classes: int | None
    softmax: bool
    tensor: str


@dataclass(frozen=True)
class ReadOutputs:
    """The outputs that a model's task reads.

    Attributes:
        task: Name of the task.
        main: Output that `infer` returns: the logits of a classifier, the scores of a detector or of the finest level of a dense
            part.
        names: Names of all outputs that are read.
    """

    task: TaskName
    main: TensorSpec
    names: tuple[str, ...]


def choose_outputs(path: Path, outputs: Sequence[TensorSpec], wanted: str | None, preferred: str | None = None) -> ReadOutputs:
    """Return the outputs to read among a model's: those of a detector or its dense part where it has all, else the logits.

    The arguments and errors are those of `choose_output`.
    """
    names = _detector_names(outputs)
    if names and wanted is None:
        dense = (name for name in names if name.startswith(DENSE_SCORES))
        main = SCORES if SCORES in names else next(dense, names[0])
        return ReadOutputs("detection", next(output for output in outputs if output.name == main), names)
    logits = choose_output(path, outputs, wanted, preferred)
    return ReadOutputs("classification", logits, (logits.name,))


def _detector_names(outputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    given = [output.name for output in outputs]
    if set(DETECTOR) <= set(given):
        return (*DETECTOR, *(name for name in given if name == MASKS))
    return tuple(given) if any(name.startswith(DELTAS) for name in given) else ()


def choose_output(path: Path, outputs: Sequence[TensorSpec], wanted: str | None, preferred: str | None = None) -> TensorSpec:
    """Return the output with the logits: `wanted`, or the only float output (N, classes) or (N, classes, 1, 1).

    If several fit, `preferred` is taken. The shape of an output may be unknown: ().

    Raises:
        ModelError: the model is a detector, no output fits, or several do and none is preferred.
        UnknownNameError: there is no output of the name wanted.
    """
    by_name = {output.name: output for output in outputs}
    names = ", ".join(by_name)
    if wanted is None and _detector_names(outputs):
        raise ModelError(f"{path}: is a detector, with the outputs {names}", "name an image classifier here")
    if wanted is not None:
        if wanted not in by_name:
            raise UnknownNameError.of("output", wanted, by_name, f"outputs of {path}: {names}")
        return by_name[wanted]
    fitting = [output for output in outputs if output.dtype in FLOATS and len(output.shape) in (0, 2, 4)]
    fitting = [output for output in fitting if len(output.shape) == 2] or fitting
    if len(fitting) > 1 and preferred is not None:
        fitting = [output for output in fitting if output.name == preferred] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise ModelError(
            f"{path}: none of its outputs ({names}) is float (N, classes)",
            "use an image classifier: one output (N, classes) or (N, classes, 1, 1)",
        )
    several = ", ".join(output.name for output in fitting)
    raise ModelError(f"{path}: several outputs may hold the logits: {several}", "name one with --output-name")


def find_logits(path: Path, graph: "onnx.GraphProto", wanted: str | None = None) -> LogitsOutput:
    """Return the logits of a graph.

    Raises:
        ModelError: no output is (N, classes) or (N, classes, 1, 1), or several are.
        UnknownNameError: there is no output of the name wanted.
    """
    makers = {name: node for node in graph.node for name in node.output}
    outputs = [_spec(value) for value in graph.output]
    chosen = choose_output(path, outputs, wanted, _most_raw(graph, makers))
    tensor, softmax = _before_softmax(chosen.name, makers)
    classes = chosen.shape[1] if len(chosen.shape) > 1 else None
    classes = classes if isinstance(classes, int) else None
    return LogitsOutput(chosen.name, classes, softmax, tensor if softmax else chosen.name)


def classifier_logits(path: Path, graph: "onnx.GraphProto", wanted: str | None = None) -> LogitsOutput | None:
    """Return the logits of a graph as `find_logits` does, or None for a detector, unless an output is named."""
    return None if wanted is None and task_of(graph) == "detection" else find_logits(path, graph, wanted)


def task_of(graph: "onnx.GraphProto") -> TaskName:
    """Return the task of a graph, by the names of its outputs; the dense part of a detector has the detector's."""
    return "detection" if _detector_names([_spec(value) for value in graph.output]) else "classification"


def _spec(value: "onnx.ValueInfoProto") -> TensorSpec:
    """Return an output's description; a scalar counts as one value, because () is an unknown shape."""
    kind = value.type.tensor_type
    shape = tuple(int(dim.dim_value) or dim.dim_param or "?" for dim in kind.shape.dim)
    return TensorSpec(value.name, dtype_name(kind.elem_type), shape or (1,) if kind.HasField("shape") else ())


def _before_softmax(name: str, makers: "dict[str, onnx.NodeProto]") -> tuple[str, bool]:
    """Return the input of the Softmax that ends in `name`, and whether there is one."""
    tensor = name
    while (node := makers.get(tensor)) is not None and node.input:
        if node.op_type == "Softmax":
            return node.input[0], True
        if node.op_type not in SHAPING:
            break
        tensor = node.input[0]
    return name, False


def _most_raw(graph: "onnx.GraphProto", makers: "dict[str, onnx.NodeProto]") -> str | None:
    """Return the output of which all others are a Softmax or a copy, or None."""
    roots: dict[str, list[tuple[bool, str]]] = {}
    for value in graph.output:
        tensor, softmax = _before_softmax(value.name, makers)
        while (node := makers.get(tensor)) is not None and node.op_type in SHAPING and node.input:
            tensor = node.input[0]
        roots.setdefault(tensor, []).append((softmax, value.name))
    if len(roots) != 1:
        return None
    return min(next(iter(roots.values())))[1]
