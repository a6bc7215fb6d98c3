"""Rewriting an ONNX file's graph into the canonical one that calibration works on."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical import layers
from emca_deploy.canonical.activations import name_activations
from emca_deploy.canonical.affine import drop_expands, fold_scales
from emca_deploy.canonical.batch import fix_image_size, free_batch, free_negative_sizes, image_value_of
from emca_deploy.canonical.batch_norm import fold_batch_norm
from emca_deploy.canonical.check import TOLERANCE, TOLERANCE_OF_HALF, known_error, largest_error, remember_error
from emca_deploy.canonical.clean import clean, name_nodes, remove_no_ops
from emca_deploy.canonical.constants import fold_constants
from emca_deploy.canonical.edit import insert_node
from emca_deploy.canonical.marks import compared_values, mark
from emca_deploy.canonical.pooling import pool_globally
from emca_deploy.canonical.rectifiers import rectify
from emca_deploy.canonical.shapes import infer_shapes, settle_shapes
from emca_deploy.canonical.unstacking import unstack_scales
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.refusal import graph_errors
from emca_deploy.requests import TaskName

if TYPE_CHECKING:
    import onnx

__all__ = ["CANONICAL_VERSION", "CanonicalModel", "canonical_model"]

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT

LEAST_OPSET = 13
"""DequantizeLinear takes one scale for each channel since 13."""

RAISED_OPSET = 17
OLDEST_OPSET = 7
LEAST_IR = 8

CANONICAL_VERSION = 4
"""Version of the rules, raised when one changes: range tables are then measured anew."""

RULES: dict[str, Callable[[ir.Model], bool]] = {
    "constants": fold_constants,
    "shapes": settle_shapes,
    "batch": free_batch,
    "broadcasting": drop_expands,
    "paddings": layers.plain_paddings,
    "pads": layers.merge_pads,
    "sums": layers.add_sums,
    "rectifiers": rectify,
    "global pooling": pool_globally,
    "stacks": unstack_scales,
    "batch norm": fold_batch_norm,
    "linear layers": layers.linear_layers,
    "scales": fold_scales,
    "linear weights": layers.plain_linear_layers,
    "flatten": layers.flatten_reshapes,
    "activations": name_activations,
}
"""Rules that rewrite nodes, in order; each needs the shapes that those before it leave."""

EXACT = frozenset({"flatten", "sums", "global pooling"})
"""Rules that replace an operator by another of the same definition and change no weight. They need no check, which takes a
second for a ResNet-50."""


@dataclass(frozen=True)
class CanonicalModel:
    """A canonical graph and how it was made.

    Attributes:
        model: the graph, which the caller may change.
        rules: names of the rules that changed more than names and order.
        error: largest difference of the logits, relative to the largest logit; None where no check was needed.
        warnings: warnings, one line each.
    """

    model: ir.Model
    rules: tuple[str, ...] = ()
    error: float | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what `calibrate` reports; `original_used` counts the files whose rewritten graph was not used."""
        return {
            "version": CANONICAL_VERSION,
            "rules": list(self.rules),
            "error": self.error if self.error is not None and isfinite(self.error) else None,
            "original_used": len(self.warnings),
        }


def canonical_model(
    file: OnnxFile, image_size: tuple[int, int] | None = None, output_name: str | None = None
) -> CanonicalModel:  # fmt: skip
    """Return the canonical graph of a float file, whose logits, or a detector's dense outputs, are compared with the file's once.

    A dynamic input is fixed to `image_size`, (height, width) in pixels; `output_name` names the logits among several outputs.

    Raises:
        ModelError: the file is no float image classifier or detector, or its graph is damaged.
        UnknownNameError: there is no output of that name.
    """
    _check_float(file)
    logits = _logits_name(file, output_name)
    rules: list[str] = []
    with graph_errors(file.path):
        model = _prepared(file, logits, image_size, rules)
        infer_shapes(model)
        for name, rule in RULES.items():
            if rule(model):
                rules.append(name)
                infer_shapes(model)
        remove_no_ops(model, _kept_names(model))
    if EXACT.issuperset(rules):
        return CanonicalModel(model, tuple(rules))
    error = _checked(file, logits, model, image_size)
    if error <= (TOLERANCE_OF_HALF if "float16" in rules else TOLERANCE):
        return CanonicalModel(model, tuple(rules), error)
    return _fallback(file, logits, image_size, (rules, error))


def _logits_name(file: OnnxFile, output_name: str | None) -> str | None:
    """Return the name of a classifier's logits; None for a detector, which has none."""
    logits = file.classifier_logits(output_name)
    return None if logits is None else logits.tensor


def _kept_names(model: ir.Model) -> frozenset[str]:
    return frozenset(str(value.name) for value in compared_values(model.graph))


def _check_float(file: OnnxFile) -> None:
    remedy = "name the fp32 model it was made from"
    if not file.graph.node or not file.graph.input:
        raise ModelError(f"{file.path}: an ONNX model without nodes", "export it again")
    if file.is_quantized:
        raise ModelError(f"{file.path}: is quantized already", remedy)
    if file.precision == "bf16":
        raise ModelError(f"{file.path}: has bf16 weights, and INT8 is made from fp32", remedy)


def _prepared(file: OnnxFile, logits: str | None, image_size: tuple[int, int] | None, rules: list[str]) -> ir.Model:
    """Return the graph cleaned, at a current opset, in float32 and of a fixed image size; what changed is added to `rules`."""
    model = file.load()
    free_negative_sizes(model.graph)
    if model.functions:  # the converter takes none
        common.InlinePass()(model)
    opset = model.opset_imports.get("", 0)
    if opset < LEAST_OPSET:
        model = ir.from_proto(_raise_opset(file.path, ir.to_proto(model), opset))
        rules.append("opset")
    clean(model)
    remove_no_ops(model, frozenset() if logits is None else {logits})
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # an exporter's inner shapes may not hold for other batches
    if any(value.dtype == HALF for value in model.graph.initializers.values()):
        widen(model)
        rules.append("float16")
    name_nodes(model)
    names = {str(value.name) for node in model.graph for value in node.outputs}
    task: TaskName = "detection" if logits is None else "classification"
    mark(model.graph, file.path, task, f"{logits}/float32" if f"{logits}/float32" in names else logits, file.image.layout)
    if image_size is not None:
        fix_image_size(model.graph, image_size, channels_last=file.image.layout == "NHWC")
    return model


def _checked(file: OnnxFile, logits: str | None, model: ir.Model, image_size: tuple[int, int] | None) -> float:
    size = "" if image_size is None else f"-{image_size[0]}x{image_size[1]}"
    key = f"{file.sha256}-{CANONICAL_VERSION}{size}"
    known = known_error(key)
    if known is not None:
        return known
    error = largest_error(file, logits, model, image_size)
    remember_error(key, error)
    return error


def _fallback(
    file: OnnxFile, logits: str | None, image_size: tuple[int, int] | None, failed: tuple[list[str], float]
) -> CanonicalModel:
    """Return the graph with only its names and constants in order, and a warning that says why."""
    rules, error = failed
    model = _prepared(file, logits, image_size, [])
    if "batch" in rules:
        value = image_value_of(model.graph)
        assert value.shape is not None
        value.shape = ir.Shape([1, *list(value.shape)[1:]])
    infer_shapes(model)
    remove_no_ops(model, _kept_names(model))
    warning = (
        f"{file.path}: rewriting its graph ({', '.join(rules)}) changes its outputs by {error:.1e} of the largest; "
        "the graph is quantized as it is"
    )
    return CanonicalModel(model, (), error, (warning,))


def _raise_opset(path: Path, model: "onnx.ModelProto", opset: int) -> "onnx.ModelProto":
    """Return the model at a newer opset; refuse one that the converter cannot convert."""
    remedy = f"export it again with opset {RAISED_OPSET}"
    if opset < OLDEST_OPSET:
        raise ModelError(f"{path}: its opset is {opset}, and {OLDEST_OPSET} is the oldest that can be converted", remedy)
    from onnx import version_converter

    # Files of IR version 3 have initializers among the inputs, which the converter does not take.
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, LEAST_IR)
    try:
        return version_converter.convert_version(model, RAISED_OPSET)
    except Exception as exc:  # the converter raises RuntimeError and its own ConvertError
        cause = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ModelError(f"{path}: its opset {opset} cannot be converted to {RAISED_OPSET}: {cause[-1][:200]}", remedy) from exc


def widen(model: ir.Model) -> None:
    """Make float16 constants and tensors float32, with a Cast at each input and output."""
    graph = model.graph
    for value in [value for value in graph.initializers.values() if value.dtype == HALF]:
        assert value.const_value is not None
        array = value.const_value.numpy().astype(np.float32)
        value.const_value = ir.Tensor(array, name=value.name)
        value.type = ir.TensorType(FLOAT)
    for node in graph:
        _widen_attributes(node)
        for value in node.outputs:
            if value.dtype in (HALF, FLOAT) and not value.is_graph_output():
                value.type = ir.TensorType(FLOAT)  # not `dtype`, which would change the type in the graph this is a clone of
    for value in list(graph.inputs):
        if value.dtype == HALF:
            _cast_input(graph, value)
    for index, value in enumerate(list(graph.outputs)):
        if value.dtype == HALF:
            _cast_output(graph, index, value)


def _widen_attributes(node: ir.Node) -> None:
    if node.op_type == "Cast" and node.attributes.get_int("to", 0) == HALF.value:
        node.attributes.add(ir.AttrInt64("to", FLOAT.value))
    for attribute in list(node.attributes.values()):
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype == HALF:
                node.attributes.add(ir.AttrTensor(attribute.name, ir.Tensor(tensor.numpy().astype(np.float32))))


def _cast_input(graph: ir.Graph, value: ir.Value) -> None:
    readers = list(value.uses())
    result = insert_node(graph, graph[0], "Cast", [value], f"{value.name}/to_float32", value, attributes={"to": FLOAT.value})
    result.name, result.type = f"{value.name}/float32", ir.TensorType(FLOAT)
    for use in readers:
        use.node.replace_input_with(use.idx, result)


def _cast_output(graph: ir.Graph, index: int, value: ir.Value) -> None:
    name = value.name
    value.name, value.type = f"{name}/float32", ir.TensorType(FLOAT)
    cast = ir.node("Cast", [value], {"to": HALF.value}, name=f"{name}/to_float16")
    result = cast.outputs[0]
    result.name, result.shape, result.dtype = name, value.shape, HALF
    graph.append(cast)
    graph.outputs[index] = result
