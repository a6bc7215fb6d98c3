"""Explaining which layers of any quantized model a backend runs in INT8, and what keeps the others in float.

A backend finds its INT8 kernels by patterns of Q/DQ pairs; where one is missing, it computes in float without a message. The
rules here are those patterns; the tests check them against the runtimes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._text import shell_word
from emca_deploy.calibration.explaining.words import FINDINGS
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds, multiplying_layers
from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.canonical.edit import producer_of
from emca_deploy.errors import ModelError
from emca_deploy.multiply_adds import WEIGHT_INPUT
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.results.layers import Int8Finding, Int8Form, Int8Report

__all__ = ["CUTS", "Explainer", "QdqPair", "explain_file", "explain_int8", "numbers_of", "pair_of", "refuse_quantized"]

EIGHT_BITS = frozenset({ir.DataType.INT8, ir.DataType.UINT8})
CUTS = frozenset({"Relu", "Clip"})
INTEGER_LAYERS = frozenset(
    {"QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)


def explain_file(path: Path, recipe: Recipe | None) -> Int8Report | None:
    """Return the report on a quantized ONNX file on this machine; None for a float file or a backend without a recipe.

    Raises:
        ModelError: the file cannot be read.
    """
    file = OnnxFile.open(path)
    if recipe is None or not file.is_quantized:
        return None
    model = file.load()
    common.ShapeInferencePass()(model)
    return explain_int8(model.graph, recipe, saturates=recipe.saturates)


def refuse_quantized(path: Path, recipe: Recipe) -> None:
    """Refuse a file that is quantized already, and report how the backend runs it.

    Raises:
        ModelError: the file is quantized already, or cannot be read.
    """
    found = explain_file(path, recipe)
    if found is None:
        return
    causes = [f"{finding.nodes[0]} {finding.problem}" for finding in found.findings[:2]]
    said = f"{found.int8_layers} of its {found.layers} layers run in INT8 on {recipe.backend}"
    raise ModelError(
        f"{path}: is quantized already; {'; '.join([said, *causes])}",
        f"name the fp32 model it was made from; all findings: emca-deploy layers {shell_word(str(path))}",
    )


def explain_int8(graph: ir.Graph, recipe: Recipe, *, saturates: bool = False) -> Int8Report:
    """Return the report on a quantized graph, with inferred shapes and weights in memory, for the recipe's backend.

    `saturates` is whether the processor adds INT8 products in 16 bits.
    """
    report: Int8Report = (recipe.explainer or Explainer)(graph, recipe.backend, saturates).report()
    return report


@dataclass
class QdqPair:
    """A DequantizeLinear and the quantization of its input."""

    node: ir.Node

    @property
    def source(self) -> ir.Node | None:
        """The QuantizeLinear that makes the integers; None for stored integers."""
        return producer_of(self.node.inputs[0])

    @property
    def dtype(self) -> ir.DataType | None:
        """Type of the integers."""
        zero = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        for value in (zero, self.node.inputs[0]):
            if value is not None and (found := value.dtype or (value.const_value.dtype if value.const_value else None)):
                return found
        return None

    @property
    def zero_points(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
        """Zero points, of any shape."""
        return numbers_of(self.node.inputs[2] if len(self.node.inputs) > 2 else None)

    @property
    def scales(self) -> int:
        """Number of scales."""
        value = self.node.inputs[1]
        return int(np.prod([size for size in value.shape if isinstance(size, int)])) if value is not None and value.shape else 1


def numbers_of(value: ir.Value | None) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Return the integers stored in a tensor, of any shape; 0 where none are stored."""
    stored = value.const_value if value is not None else None
    return np.asarray(0 if stored is None else stored.numpy()).astype(np.int64)


def pair_of(value: ir.Value | None) -> QdqPair | None:
    """Return the pair whose DequantizeLinear makes a tensor; None for another tensor."""
    dequantize = producer_of(value, "DequantizeLinear")
    return None if dequantize is None else QdqPair(dequantize)


@dataclass
class Explainer:
    """The rules that hold for most backends; a recipe's own explainer changes them.

    Attributes:
        graph: quantized graph with inferred shapes and weights in memory.
        backend: name of the backend.
        saturates: whether the processor adds INT8 products in 16 bits; see `CpuInfo.saturates_int8`.
        found: names of the nodes with each kind of finding.
        takes_integer_operators: whether operators such as QLinearConv run in INT8.
    """

    graph: ir.Graph
    backend: str
    saturates: bool
    found: dict[str, list[str]] = field(default_factory=dict)
    takes_integer_operators: ClassVar[bool] = False

    def report(self) -> Int8Report:
        """Return the findings about the graph."""
        attention = find_attention(self.graph).nodes
        layers = {node: image_multiply_adds(node) for node in multiplying_layers(self.graph)}
        quantized = [node for node in layers if self._is_int8(node, in_attention=node in attention)]
        for node in self.graph:
            self._look_between(node)
        whole = sum(layers.values())
        share = 100 * sum(layers[node] for node in quantized) / whole if whole else 0.0
        found = tuple(
            Int8Finding(kind, tuple(self.found[kind]), *(text.format(backend=self.backend) for text in words))
            for kind, words in FINDINGS.items()
            if kind in self.found
        )
        return Int8Report(self.backend, self._form(), len(layers), len(quantized), round(share, 2), found)

    def _form(self) -> Int8Form:
        kinds = {node.op_type for node in self.graph}
        if kinds & {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}:
            return "dynamic"
        return "operators" if kinds & INTEGER_LAYERS else "qdq"

    def tell(self, kind: str, node: ir.Node) -> bool:
        """Record a finding about a node; return False, since it keeps the node from INT8."""
        names = self.found.setdefault(kind, [])
        name = node.name or str(node.outputs[0].name)
        if name not in names:
            names.append(name)
        return False

    def _is_int8(self, node: ir.Node, *, in_attention: bool) -> bool:
        """Return whether the backend runs a layer in INT8, and record what prevents it; attention belongs in float."""
        if node.op_type in INTEGER_LAYERS:
            return self._integer_operator(node)
        activation, weight = pair_of(node.inputs[0]), pair_of(node.inputs[1])
        if in_attention and (activation is None or weight is None):
            return False
        if activation is None:
            behind = any(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses())
            return self.tell("quantized_behind" if behind and weight is not None else "float_layer", node)
        if weight is None:
            return self.tell("float_weights", node)
        self._look_at_weights(node, weight)
        return self._types_fit(node, activation, weight) and self.fits(node, weight)

    def _integer_operator(self, node: ir.Node) -> bool:
        if node.op_type in {"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}:
            self.tell("run_time_ranges", node)
        scales = node.inputs[4] if node.op_type in {"QLinearConv", "QLinearMatMul", "QGemm"} else None
        if scales is not None and scales.const_value is not None and scales.const_value.size == 1:
            self._per_tensor(node, node.inputs[3])
        return True if self.takes_integer_operators else self.tell("integer_operator", node)

    def _look_at_weights(self, node: ir.Node, weight: QdqPair) -> None:
        if weight.scales == 1:
            self._per_tensor(node, weight.node.inputs[0])
        stored = weight.node.inputs[0]
        numbers = stored.const_value if stored is not None else None
        if self.saturates and numbers is not None and weight.dtype == ir.DataType.INT8:
            largest = np.abs(np.asarray(numbers.numpy()).astype(np.int16)).max(initial=0)
            if largest > LARGEST_WEIGHT[7]:
                self.tell("saturation", node)

    def _per_tensor(self, node: ir.Node, stored: ir.Value | None) -> None:
        shape = list(stored.shape) if stored is not None and stored.shape is not None else []
        if len(shape) > 1 and max(size for size in (shape[0], shape[-1]) if isinstance(size, int)) > 1:
            self.tell("per_tensor_weights", node)

    def _types_fit(self, node: ir.Node, activation: QdqPair, weight: QdqPair) -> bool:
        if activation.dtype not in EIGHT_BITS or weight.dtype not in EIGHT_BITS:
            return self.tell("wide_types", node)
        return self.tell("activation_scales", node) if activation.scales > 1 else True

    def fits(self, node: ir.Node, weight: QdqPair) -> bool:
        """Return whether the backend has an INT8 kernel for a layer with operands of 8 bits."""
        symmetric = weight.dtype != ir.DataType.UINT8 and not weight.zero_points.any()
        return True if symmetric or node.op_type in {"Gemm", "MatMul"} else self.tell("asymmetric_weights", node)

    def _look_between(self, node: ir.Node) -> None:
        """Record an operator between a DQ and a Q that runs in float, and a Q/DQ pair between a layer and its ReLU."""
        pairs = [pair for value in node.inputs if (pair := pair_of(value)) is not None and pair.source is not None]
        if not pairs or node.op_type in {"QuantizeLinear", "DequantizeLinear"} | WEIGHT_INPUT.keys():
            return
        source = pairs[0].source
        before = producer_of(source.inputs[0]) if source is not None else None
        if node.op_type in CUTS and before is not None and before.op_type in WEIGHT_INPUT:
            self.tell("quantized_before_activation", node)
            return
        if not any(value.is_graph_output() for value in node.outputs):
            self.look_behind(node)

    def look_behind(self, node: ir.Node) -> None:
        """Record what else keeps an operator in float that reads INT8 and makes no output of the graph."""
