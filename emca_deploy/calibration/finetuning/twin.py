"""A float graph as a function of PyTorch tensors, in which the tensors of a placement are rounded, by trained scales.

Rounding has no useful slope: its gradient is that of the identity within the range, and zero where the range clips
(straight-through estimator). Scales get the gradient of Esser et al., "Learned Step Size Quantization" (2020).
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.finetuning.operators import OPERATORS
from emca_deploy.calibration.graphs.weighted_layers import bias_of, output_axis, weight_of, weight_rows
from emca_deploy.calibration.placement.place import Placement
from emca_deploy.calibration.placement.quantize import QuantizedWeight, QuantParams, activation_params, quantize_weight
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.canonical.batch import image_value_of
from emca_deploy.canonical.edit import constant_of
from emca_deploy.canonical.marks import label_of, logits_value
from emca_deploy.errors import ModelError

__all__ = ["RoundedLayer", "Rounding", "Twin", "needed_nodes"]

BIAS_UNIT = 0.01
"""Unit in which a layer's biases are trained, as a share of their root mean square."""


class _Round(torch.autograd.Function):
    """Rounding to the integers of one scale and zero point, and back to float."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero: Tensor, ends: tuple[int, int]) -> Tensor:
        low, high = ends
        rounded = torch.fake_quantize_per_tensor_affine(values, scale.detach().reshape(1), zero, low, high)
        ctx.save_for_backward(values, rounded, scale)
        ctx.limits = (low - int(zero) - 0.5, high - int(zero) + 0.5)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        values, rounded, scale = ctx.saved_tensors
        low, high = (end * float(scale) for end in ctx.limits)
        passed = gradient * ((values >= low) & (values <= high))
        # Within the range the rounded value grows by (rounded - value) / scale, at its ends by rounded / scale.
        slope = (torch.sum(gradient * rounded) - torch.sum(passed * values)) / scale
        return passed, slope.reshape(scale.shape), None, None


class RoundedLayer(nn.Module):
    """The rounded weights of one layer, which stay as they are, and its trained bias."""

    def __init__(self, node: ir.Node, weight: QuantizedWeight) -> None:
        super().__init__()
        integers, scales = weight
        shape = [1] * integers.ndim
        shape[output_axis(node)] = -1
        self.weight = _in_layout(torch.from_numpy(integers * scales.reshape(shape)))
        bias = bias_of(node)
        self.has_bias = len(node.inputs) > 2 and constant_of(node.inputs[2]) is not None
        self.bias_shift = nn.Parameter(torch.zeros(len(bias)))
        self.bias, self.unit = torch.from_numpy(bias.copy()), BIAS_UNIT * float(np.sqrt(np.mean(bias**2)) or 1.0)

    def current_bias(self) -> Tensor:
        """Return the bias."""
        return self.bias + self.unit * self.bias_shift

    def trained_bias(self) -> Float32Array:
        """Return the bias, (output channels,)."""
        bias: Float32Array = self.current_bias().detach().numpy()
        return bias


class Rounding(nn.Module):
    """The rounding of a placement's tensors and weights, with trained scales of the tensors and trained biases."""

    def __init__(self, placement: Placement, ranges: Mapping[str, TensorRange], weights: Mapping[str, QuantizedWeight]) -> None:
        super().__init__()
        self._ranges = ranges
        recipe = placement.recipe
        self._reads = {value: frozenset(readers) for value, readers in placement.edges.items()}
        self._sources: dict[ir.Value, str] = {}
        self._params: dict[ir.Value, QuantParams] = {}
        for value in placement.edges:
            source = value
            while source in placement.same:
                source = placement.same[source]
            self._sources[value] = str(source.name)
            symmetric = recipe.symmetric or value in placement.symmetric
            self._params[value] = activation_params(ranges[str(source.name)], symmetric=symmetric)
        names = sorted(set(self._sources.values()))
        self.growths = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in names])
        self._growth = dict(zip(names, self.growths, strict=True))
        self.layers: dict[str, RoundedLayer] = {}
        for node in placement.weighted:
            nearest = weights.get(str(node.name)) or quantize_weight(
                weight_of(node), output_axis(node) % weight_of(node).ndim, recipe.largest_weight
            )
            self.layers[str(node.name)] = RoundedLayer(node, nearest)
        self.trained = nn.ModuleList(self.layers.values())
        self.stored = {str(node.name): _stored(node) for node in placement.weight_only}

    def constant(self, node: ir.Node, index: int) -> Tensor | None:
        """Return a layer's rounded weights or trained bias; None for another constant."""
        name = str(node.name)
        layer = self.layers.get(name)
        if layer is not None and index == 1:
            return layer.weight
        if layer is not None and index == 2:
            return layer.current_bias()
        return self.stored.get(name) if index == 1 else None

    def reads_rounded(self, value: ir.Value, node: ir.Node, index: int) -> bool:
        """Return whether an input of a node reads its tensor rounded."""
        return (node, index) in self._reads.get(value, frozenset())

    def rounded(self, value: ir.Value, values: Tensor) -> Tensor:
        """Return a tensor as its readers read it."""
        params = self._params[value]
        scale = params.scale * self._growth[self._sources[value]].exp()
        ends = (-127, 127) if params.signed else (0, 255)
        result: Tensor = _Round.apply(values, scale, torch.tensor([params.zero_point], dtype=torch.int32), ends)  # type: ignore[no-untyped-call]
        return result

    def current_ranges(self) -> dict[str, TensorRange]:
        """Return the ranges of the placement's tensors by name."""
        found = {}
        for name, growth in self._growth.items():
            factor, own = float(growth.detach().exp()), self._ranges[name]
            found[name] = TensorRange(own.minimum * factor, own.maximum * factor, own.magnitude * factor)
        return found


def _in_layout(weights: Tensor) -> Tensor:
    """Return a convolution's weights in the layout of the images, which saves a copy in each step."""
    return weights.contiguous(memory_format=torch.channels_last) if weights.ndim == 4 else weights


def _stored(node: ir.Node) -> Tensor:
    """Return the weights of a layer that stores them as INT8 and multiplies in float."""
    integers, scales = quantize_weight(weight_rows(node), 0)
    return torch.from_numpy((integers * scales[:, None]).reshape(weight_of(node).shape))


def needed_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes that the logits depend on, in the order they run."""
    needed: set[ir.Value] = {logits_value(graph)}
    found = []
    for node in reversed(graph):
        if not needed.isdisjoint(node.outputs):
            needed.update(value for value in node.inputs if value is not None)
            found.append(node)
    return found[::-1]


@dataclass(frozen=True)
class _Step:
    """A node, what computes it, and the tensors that nothing after it reads."""

    node: ir.Node
    compute: Callable[[ir.Node, Sequence[Tensor | None]], Tensor]
    last_of: frozenset[ir.Value]


class Twin:
    """A float graph as a function of images, (N, 3, H, W) float32.

    Raises:
        ModelError: the graph has an operator that has no form in PyTorch here.
    """

    def __init__(self, graph: ir.Graph, rounding: Rounding | None = None) -> None:
        self._entry, self._logits, self._rounding = image_value_of(graph), logits_value(graph), rounding
        nodes = needed_nodes(graph)
        unknown = sorted({node.op_type for node in nodes if node.op_type not in OPERATORS or len(node.outputs) != 1})
        if unknown:
            raise ModelError(
                f"{label_of(graph)}: fine-tuning cannot compute its operators {', '.join(unknown)}",
                "leave out --recover finetune, or export the checkpoint with `emca-deploy export`",
            )
        self._constants = {
            value: _in_layout(torch.from_numpy(np.array(array)))
            for node in nodes
            for value in node.inputs
            if value is not None and (array := constant_of(value)) is not None
        }
        seen: Set[ir.Value] = set()
        steps = []
        for node in reversed(nodes):
            reads = {value for value in node.inputs if value is not None and value not in self._constants}
            steps.append(_Step(node, OPERATORS[node.op_type], frozenset(reads - seen)))
            seen = seen | reads
        self._steps = steps[::-1]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits, float32."""
        held: dict[ir.Value, Tensor] = {self._entry: images}
        rounded: dict[ir.Value, Tensor] = {}
        for step in self._steps:
            operands = [self._operand(step.node, index, held, rounded) for index in range(len(step.node.inputs))]
            held[step.node.outputs[0]] = step.compute(step.node, operands)
            for value in step.last_of:
                held.pop(value, None)
                rounded.pop(value, None)
        return held[self._logits]

    def _operand(
        self, node: ir.Node, index: int, held: Mapping[ir.Value, Tensor], rounded: dict[ir.Value, Tensor]
    ) -> Tensor | None:
        value, rounding = node.inputs[index], self._rounding
        if value is None:
            return None
        if value in self._constants:
            own = None if rounding is None else rounding.constant(node, index)
            return self._constants[value] if own is None else own
        if rounding is None or not rounding.reads_rounded(value, node, index):
            return held[value]
        if value not in rounded:
            rounded[value] = rounding.rounded(value, held[value])
        return rounded[value]
