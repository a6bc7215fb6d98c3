"""From an ONNX file to the one graph that calibration works on."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical.activations import name_activations
from emca_deploy.canonical.affine import fold_scales
from emca_deploy.canonical.batch import fix_image_size, free_batch, free_negative_sizes, image_value_of
from emca_deploy.canonical.batch_norm import fold_batch_norm
from emca_deploy.canonical.broadcast import drop_expands
from emca_deploy.canonical.check import TOLERANCE, TOLERANCE_OF_HALF, known_error, largest_error, remember_error
from emca_deploy.canonical.clean import clean, name_nodes, remove_no_ops
from emca_deploy.canonical.constants import fold_constants
from emca_deploy.canonical.forms import add_sums, flatten_reshapes, linear_layers, merge_pads
from emca_deploy.canonical.half import widen
from emca_deploy.canonical.infer import infer_shapes
from emca_deploy.canonical.layers import plain_linear_layers, plain_paddings
from emca_deploy.canonical.marks import logits_value, mark
from emca_deploy.canonical.opset import raise_opset
from emca_deploy.canonical.pooling import pool_globally
from emca_deploy.canonical.rectifiers import rectify
from emca_deploy.canonical.shapes import settle_shapes
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.refusal import graph_errors

__all__ = ["CANONICAL_VERSION", "CanonicalModel", "canonical_model"]

CANONICAL_VERSION = 3
"""Raised when a rule changes: range tables of the same file are then measured anew."""

RULES: dict[str, Callable[[ir.Model], bool]] = {
    "constants": fold_constants,
    "shapes": settle_shapes,
    "batch": free_batch,
    "broadcasting": drop_expands,
    "paddings": plain_paddings,
    "pads": merge_pads,
    "sums": add_sums,
    "rectifiers": rectify,
    "global pooling": pool_globally,
    "batch norm": fold_batch_norm,
    "linear layers": linear_layers,
    "scales": fold_scales,
    "linear weights": plain_linear_layers,
    "flatten": flatten_reshapes,
    "activations": name_activations,
}
"""Rules that rewrite nodes, in order; each needs the shapes that the ones before it leave."""

EXACT = frozenset({"flatten", "sums", "global pooling"})
"""Rules that name an operation by another operator of the same definition. No weight changes, so nothing is checked after them:
the check takes a second of a ResNet-50's loading."""


@dataclass(frozen=True)
class CanonicalModel:
    """A canonical graph and how it came about.

    Attributes:
        model: the graph, the caller's own to change.
        rules: names of the rules that changed something beyond names and order.
        error: largest difference of the logits over the largest logit; None where no rule changed how anything is computed.
        warnings: one line each.
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
            "error": self.error if self.error is None or isfinite(self.error) else None,
            "original_used": len(self.warnings),
        }


def canonical_model(
    file: OnnxFile, image_size: tuple[int, int] | None = None, output_name: str | None = None
) -> CanonicalModel:  # fmt: skip
    """Return the canonical graph of a float file, held against the file once.

    Args:
        file: the ONNX file.
        image_size: (height, width) in pixels that a dynamic input is fixed to.
        output_name: the output with the logits, where the file has several.

    Raises:
        ModelError: the file is no float image classifier, or its graph is damaged.
        UnknownNameError: there is no output of that name.
    """
    _check_float(file)
    logits = file.find_logits(output_name)
    rules: list[str] = []
    with graph_errors(file.path):
        model = _prepared(file, logits.tensor, rules)
        if image_size is not None:
            fix_image_size(model.graph, image_size, channels_last=file.image.layout == "NHWC")
        infer_shapes(model)
        for name, rule in RULES.items():
            if rule(model):
                rules.append(name)
                infer_shapes(model)
        remove_no_ops(model, logits_value(model.graph).name)
    if EXACT.issuperset(rules):
        return CanonicalModel(model, tuple(rules))
    error = _checked(file, logits.tensor, model, image_size)
    if error <= (TOLERANCE_OF_HALF if "float16" in rules else TOLERANCE):
        return CanonicalModel(model, tuple(rules), error)
    return _fallback(file, logits.tensor, image_size, (rules, error))


def _check_float(file: OnnxFile) -> None:
    remedy = "name the fp32 model it was made from"
    if not file.graph.node or not file.graph.input:
        raise ModelError(f"{file.path}: an ONNX model without nodes", "export it again")
    if file.is_quantized:
        raise ModelError(f"{file.path}: is quantized already", remedy)
    if file.precision == "bf16":
        raise ModelError(f"{file.path}: has bf16 weights, and INT8 is made from fp32", remedy)


def _prepared(file: OnnxFile, logits: str, rules: list[str]) -> ir.Model:
    """Return the graph cleaned, at a current opset, and in float32."""
    model = file.load()
    free_negative_sizes(model.graph)
    if model.functions:
        common.InlinePass()(model)
    opset = model.opset_imports.get("", 0)
    proto = raise_opset(file.path, ir.to_proto(model), opset) if opset < 13 else None
    if proto is not None:
        model = ir.from_proto(proto)
        rules.append("opset")
    clean(model)
    remove_no_ops(model, logits)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # what an exporter wrote of shapes in between may not hold for other batches
    if widen(model):
        rules.append("float16")
    name_nodes(model)
    names = {str(value.name) for node in model.graph for value in node.outputs}
    mark(model.graph, file.path, f"{logits}/float32" if f"{logits}/float32" in names else logits, file.image.layout)
    return model


def _checked(file: OnnxFile, logits: str, model: ir.Model, image_size: tuple[int, int] | None) -> float:
    size = "" if image_size is None else f"-{image_size[0]}x{image_size[1]}"
    key = f"{file.sha256}-{CANONICAL_VERSION}{size}"
    known = known_error(key)
    if known is not None:
        return known
    error = largest_error(file, logits, model, image_size)
    remember_error(key, error)
    return error


def _fallback(file: OnnxFile, logits: str, image_size: tuple[int, int] | None, failed: tuple[list[str], float]) -> CanonicalModel:
    """Return the graph with names and constants in order only, and say why."""
    rules, error = failed
    model = _prepared(file, logits, [])
    if image_size is not None:
        fix_image_size(model.graph, image_size, channels_last=file.image.layout == "NHWC")
    if "batch" in rules:
        value = image_value_of(model.graph)
        assert value.shape is not None
        value.shape = ir.Shape([1, *list(value.shape)[1:]])
    infer_shapes(model)
    remove_no_ops(model, logits_value(model.graph).name)
    warning = (
        f"{file.path}: rewriting its graph ({', '.join(rules)}) changes its logits by {error:.1e} of the largest; "
        "the graph is quantized as it is"
    )
    return CanonicalModel(model, (), error, (warning,))
