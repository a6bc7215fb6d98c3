"""What of a quantized model a backend runs in INT8, and what keeps the rest in float: somebody else's files explained.

A backend finds its INT8 kernels by patterns of Q/DQ pairs; where one is missing, it computes in float and says nothing. The rules
here are those patterns, checked against the runtimes themselves in the tests.
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
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds
from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
from emca_deploy.calibration.placement.recipe import Recipe
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
    """Explain a quantized ONNX file on this machine; None of a float one, and for a backend without a recipe.

    Raises:
        ModelError: it cannot be read.
    """
    file = OnnxFile.open(path)
    if recipe is None or not file.is_quantized:
        return None
    model = file.load()
    common.ShapeInferencePass()(model)
    return explain_int8(model.graph, recipe, saturates=recipe.saturates)


def refuse_quantized(path: Path, recipe: Recipe) -> None:
    """Refuse to quantize a file that is quantized already, and say what a backend makes of it.

    Raises:
        ModelError: it is quantized already, or cannot be read.
    """
    found = explain_file(path, recipe)
    if found is None:
        return
    causes = [f"{finding.nodes[0]} {finding.problem}" for finding in found.findings[:2]]
    said = f"{found.int8_layers} of its {found.layers} layers run in INT8 on {recipe.backend}"
    raise ModelError(
        f"{path}: is quantized already; {'; '.join([said, *causes])}",
        f"name the fp32 model it was made from; what else is in the way: emca-deploy layers {shell_word(str(path))}",
    )


def explain_int8(graph: ir.Graph, recipe: Recipe, *, saturates: bool = False) -> Int8Report:
    """Explain a quantized graph, with its shapes inferred and weights in memory, to be run by the recipe's backend.

    `saturates` says whether the processor adds INT8 products in 16 bits; see `CpuInfo.saturates_int8`.
    """
    return (recipe.explainer or Explainer)(graph, recipe.backend, saturates).report()


@dataclass
class QdqPair:
    """A DequantizeLinear: what it reads, and how that is quantized."""

    node: ir.Node

    @property
    def source(self) -> ir.Node | None:
        """The QuantizeLinear that makes what it reads; None for stored integers."""
        value = self.node.inputs[0]
        return value.producer() if value is not None else None

    @property
    def dtype(self) -> ir.DataType | None:
        """Of the integers."""
        zero = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        for value in (zero, self.node.inputs[0]):
            if value is not None and (found := value.dtype or (value.const_value.dtype if value.const_value else None)):
                return found
        return None

    @property
    def zero_points(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
        """Its zero points, of any shape."""
        return numbers_of(self.node.inputs[2] if len(self.node.inputs) > 2 else None, 0)

    @property
    def scales(self) -> int:
        """How many scales it has."""
        value = self.node.inputs[1]
        return int(np.prod([size for size in value.shape if isinstance(size, int)])) if value is not None and value.shape else 1


def numbers_of(value: ir.Value | None, default: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Return the integers stored in a tensor, of any shape; the default where none are."""
    if value is None or value.const_value is None:
        return np.array(default)
    return np.asarray(value.const_value.numpy()).astype(np.int64)


def pair_of(value: ir.Value | None) -> QdqPair | None:
    """Return the DequantizeLinear that makes a tensor, or None."""
    producer = value.producer() if value is not None else None
    return QdqPair(producer) if producer is not None and producer.op_type == "DequantizeLinear" else None


@dataclass
class Explainer:
    """What holds for most backends, which a recipe's own explainer changes: what of a graph runs in INT8, and why not the rest.

    Attributes:
        graph: with its shapes inferred, weights in memory.
        backend: that is to run it.
        saturates: whether the processor adds INT8 products in 16 bits; see `CpuInfo.saturates_int8`.
        found: nodes with each kind of finding, by name.
        takes_integer_operators: whether QLinearConv and the like run in INT8.
    """

    graph: ir.Graph
    backend: str
    saturates: bool
    found: dict[str, list[str]] = field(default_factory=dict)
    takes_integer_operators: ClassVar[bool] = False

    def report(self) -> Int8Report:
        """Walk the graph and return what was found."""
        attention = find_attention(self.graph).nodes
        layers = {node: image_multiply_adds(node) for node in self.graph if node.op_type in WEIGHT_INPUT}
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
        """Record something; returns False, for what is in the way of INT8."""
        names = self.found.setdefault(kind, [])
        name = node.name or str(node.outputs[0].name)
        if name not in names:
            names.append(name)
        return False

    def _is_int8(self, node: ir.Node, *, in_attention: bool) -> bool:
        """Return whether the backend runs a layer in INT8, and record what is in the way; attention belongs in float."""
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
        if activation.scales > 1:
            return self.tell("activation_scales", node)
        return True

    def fits(self, node: ir.Node, weight: QdqPair) -> bool:
        """Return whether there is an INT8 kernel for a layer whose operands are quantized to 8 bits."""
        if node.op_type in {"Gemm", "MatMul"}:
            return True
        if weight.dtype == ir.DataType.UINT8 or weight.zero_points.any():
            return self.tell("asymmetric_weights", node)
        return True

    def _look_between(self, node: ir.Node) -> None:
        """Record an operator between a DQ and a Q that runs in float, and a Q/DQ pair between a layer and its ReLU."""
        pairs = [pair for value in node.inputs if (pair := pair_of(value)) is not None and pair.source is not None]
        if not pairs or node.op_type in {"QuantizeLinear", "DequantizeLinear"} | WEIGHT_INPUT.keys():
            return
        source = pairs[0].source
        before = source.inputs[0].producer() if source is not None and source.inputs[0] is not None else None
        if node.op_type in CUTS and before is not None and before.op_type in WEIGHT_INPUT:
            self.tell("quantized_before_activation", node)
            return
        if not any(value.is_graph_output() for value in node.outputs):
            self.look_behind(node)

    def look_behind(self, node: ir.Node) -> None:
        """Record whatever else keeps an operator from INT8 that reads it and makes no output of the graph."""
