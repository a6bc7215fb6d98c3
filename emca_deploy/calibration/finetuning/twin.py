"""A float graph as a function of PyTorch tensors, in which the tensors and weights of a placement are rounded and trained.

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

ALMOST_HALF = 0.4
"""Largest distance of a weight from its integer at the start, in steps: each weight begins at the integer that it has by now."""

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


class _RoundWeights(torch.autograd.Function):
    """Rounding of weights in steps to integers times the scales of output channels, in few passes over them."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, scales: Tensor, largest: int) -> Tensor:
        integers = steps.round().clamp_(-largest, largest)
        ctx.save_for_backward(integers, scales)
        return integers * scales

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        integers, scales = ctx.saved_tensors
        for_steps, for_scales, _ = ctx.needs_input_grad
        slope = (
            (gradient * integers).sum([axis for axis, size in enumerate(scales.shape) if size == 1], True) if for_scales else None
        )
        return (gradient * scales if for_steps else None), slope, None


class RoundedLayer(nn.Module):
    """The trained weights of one layer.

    The weights are `integers * scales`, where the integers are rounded and the scales are exponentials: a change of either is
    relative to the layer's own step.
    """

    def __init__(self, node: ir.Node, weight: QuantizedWeight, largest: int) -> None:
        super().__init__()
        integers, scales = weight
        floats, axis = weight_of(node), output_axis(node)
        self.shape = [1] * floats.ndim
        self.shape[axis] = -1
        steps = floats / scales.reshape(self.shape)
        begin = integers + np.clip(steps - integers, -ALMOST_HALF, ALMOST_HALF)
        # Convolutions of images in this layout would copy weights in another one in each step.
        layout = torch.channels_last if begin.ndim == 4 else torch.contiguous_format
        self.steps = nn.Parameter(torch.from_numpy(begin.astype(np.float32)).contiguous(memory_format=layout))
        self.growth = nn.Parameter(torch.zeros(len(scales)))
        self.scales, self.largest = torch.from_numpy(scales.copy()), largest
        bias = bias_of(node)
        self.has_bias = len(node.inputs) > 2 and constant_of(node.inputs[2]) is not None
        self.bias_shift = nn.Parameter(torch.zeros(len(bias)))
        self.bias, self.unit = torch.from_numpy(bias.copy()), BIAS_UNIT * float(np.sqrt(np.mean(bias**2)) or 1.0)

    def integers(self) -> Tensor:
        """Return the rounded weights in steps."""
        return self.steps.detach().round().clamp(-self.largest, self.largest)

    def current_scales(self) -> Tensor:
        """Return the scale of each output channel."""
        return self.scales * self.growth.exp()

    def weight(self) -> Tensor:
        """Return the weights, whose gradient is that of unrounded ones."""
        scales = self.current_scales().reshape(self.shape)
        result: Tensor = _RoundWeights.apply(self.steps, scales, self.largest)  # type: ignore[no-untyped-call]
        return result

    def current_bias(self) -> Tensor:
        """Return the bias."""
        return self.bias + self.unit * self.bias_shift

    def rounded_weight(self) -> Float32Array:
        """Return the weights in the layout of the layer's own."""
        weight: Float32Array = self.weight().detach().numpy()
        return weight

    def rounded_bias(self) -> Float32Array:
        """Return the bias, (output channels,)."""
        bias: Float32Array = self.current_bias().detach().numpy()
        return bias

    def quantized(self) -> QuantizedWeight:
        """Return the integers, and the scale of each output channel."""
        scales: Float32Array = self.current_scales().detach().numpy()
        return self.integers().numpy().astype(np.int8), scales


class Rounding(nn.Module):
    """The rounding of a placement's tensors and weights, with trained scales and weights."""

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
            self.layers[str(node.name)] = RoundedLayer(node, nearest, recipe.largest_weight)
        self.trained = nn.ModuleList(self.layers.values())
        self.stored = {str(node.name): _stored(node) for node in placement.weight_only}

    def constant(self, node: ir.Node, index: int) -> Tensor | None:
        """Return the rounded or trained form of a layer's weights or bias; None for another constant."""
        name = str(node.name)
        layer = self.layers.get(name)
        if layer is not None and index == 1:
            return layer.weight()
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

    def current_weights(self) -> dict[str, QuantizedWeight]:
        """Return the layers' integers and scales by node name."""
        return {name: layer.quantized() for name, layer in self.layers.items()}


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
            value: torch.from_numpy(np.array(array))
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

    @property
    def logits_name(self) -> str:
        """Name of the logits."""
        return str(self._logits.name)

    def __call__(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the named tensors, float32, and the logits by their own name."""
        wanted = {*names, self.logits_name}
        held: dict[ir.Value, Tensor] = {self._entry: images}
        rounded: dict[ir.Value, Tensor] = {}
        found: dict[str, Tensor] = {}
        for step in self._steps:
            operands = [self._operand(step.node, index, held, rounded) for index in range(len(step.node.inputs))]
            output = step.node.outputs[0]
            held[output] = step.compute(step.node, operands)
            if output.name in wanted:
                found[str(output.name)] = held[output]
            for value in step.last_of:
                held.pop(value, None)
                rounded.pop(value, None)
        return found

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
