"""Computing attention over several maps on stacks of their statistics: the same numbers, up to the order of sums, in fewer nodes.

EMCA's aggregation is `relu(w0 * current + repeat(sum_r w_r * previous_r))`, with a descriptor (N, C, K, 1) for each map. K is 1
for SE and ECA, and 2 for SRM, whose descriptor is the mean and the standard deviation. Stacked, all descriptors are one tensor
(N, groups, width, 1), and a weighted sum over maps is a 1x1 convolution. SRM's variance comes from a map's mean and its norm,
`(norm^2 - pixels * mean^2) / (pixels - 1)`, for all maps at once. `canonical.unstacking` is the way back.
"""

from dataclasses import dataclass
from math import gcd, prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical.edit import (
    constant_of,
    insert_node,
    int64_constant,
    new_constant,
    producer_of,
    set_constant,
    sole_producer,
)
from emca_deploy.canonical.pooling import is_descriptor, reduced_axes

__all__ = ["MapStatistics", "Scale", "number_of", "stack_scales", "statistics_of", "variance_weights"]


@dataclass(frozen=True)
class MapStatistics:
    """What SRM's descriptor (N, C, 2, 1) of a map is made of.

    Attributes:
        source: The map, (N, C, H, W).
        mean: Its channel means, (N, C, 1, 1).
        unbiased: Factor of the mean squared deviation: pixels / (pixels - 1), or 1 for one pixel.
        epsilon: Number that is added to the variance before the root.
    """

    source: ir.Value
    mean: ir.Value
    unbiased: float
    epsilon: float

    @property
    def pixels(self) -> int:
        """Number of pixels of the map; 0 where it is unknown."""
        sides = list(self.source.shape)[2:] if self.source.shape is not None else []
        known = [side for side in sides if isinstance(side, int)]
        return prod(known) if len(known) == 2 else 0


@dataclass(frozen=True)
class Scale:
    """One term of an aggregation: a descriptor and its weight; its channels are repeated up to those of the sum."""

    descriptor: ir.Value
    weight: float

    @property
    def width(self) -> int:
        """Number of channels."""
        sides = list(self.descriptor.shape or [])
        return sides[1] if len(sides) > 1 and isinstance(sides[1], int) else 0


def stack_scales(model: ir.Model) -> int:
    """Compute every aggregation on stacks, in place; return their number. Nodes have names and tensors have shapes.

    SRM's descriptors without aggregation lose the factor of their variance to the convolution that reads them.
    """
    graph, count = model.graph, 0
    for relu in list(graph):
        scales = _aggregation(relu)
        if scales is None:
            continue
        statistics = [statistics_of(scale.descriptor) for scale in scales]
        styles = [one for one in statistics if one is not None and one.pixels]
        if len(styles) == len(scales):
            result = _stacked_styles(graph, relu, scales, styles)
        elif all(is_descriptor(scale.descriptor) for scale in scales):
            result = _stacked_means(graph, relu, scales)
        else:
            continue
        _let_read(relu.outputs[0], result)
        count += 1
    for node in list(graph):
        _fold_unbiased(graph, node)
    common.RemoveUnusedNodesPass()(model)
    return count


def _let_read(old: ir.Value, new: ir.Value) -> None:
    """Let all readers of a tensor read a reshaped one; those that reshape it again read what it was reshaped from."""
    reshape = new.producer()
    assert reshape is not None
    for use in list(old.uses()):
        again = use.node.op_type == "Reshape" and use.idx == 0 and constant_of(use.node.inputs[1]) is not None
        use.node.replace_input_with(use.idx, reshape.inputs[0] if again else new)


def _fold_unbiased(graph: ir.Graph, conv: ir.Node) -> None:
    """Multiply a convolution over (mean, deviation) by the root of what makes the variance unbiased, instead of the variance."""
    style = statistics_of(conv.inputs[0]) if conv.op_type == "Conv" and sole_producer(conv.inputs[0], "Concat") else None
    weight = constant_of(conv.inputs[1]) if style is not None else None
    if style is None or weight is None or weight.shape[1:] != (1, 2, 1):
        return
    concat = producer_of(conv.inputs[0])
    root = sole_producer(concat.inputs[1], "Sqrt") if concat is not None else None
    add = sole_producer(root.inputs[0], "Add") if root is not None else None
    factor = sole_producer(add.inputs[0], "Mul") if add is not None else None
    if add is None or factor is None:
        return
    add.replace_input_with(0, factor.inputs[0])
    set_constant(graph, add, 1, f"{add.name}.epsilon", np.array(style.epsilon / style.unbiased, np.float32))
    scaled = weight * np.array([1, style.unbiased**0.5]).reshape(1, 1, 2, 1)
    set_constant(graph, conv, 1, f"{conv.name}.weight_unbiased", scaled.astype(np.float32))


def statistics_of(descriptor: ir.Value | None) -> MapStatistics | None:
    """Return what a descriptor Concat(mean, Sqrt(variance + epsilon)) is made of; None for other tensors."""
    concat = producer_of(descriptor, "Concat")
    if concat is None or concat.attributes.get_int("axis", 0) != 2 or len(concat.inputs) != 2:
        return None
    mean, root = concat.inputs
    add = producer_of(getattr(producer_of(root, "Sqrt"), "inputs", [None])[0], "Add")
    factor = producer_of(add.inputs[0], "Mul") if add is not None else None
    pool = producer_of(factor.inputs[0] if factor is not None else None, "GlobalAveragePool")
    square = producer_of(pool.inputs[0] if pool is not None else None, "Mul")
    centred = producer_of(square.inputs[0] if square is not None else None, "Sub")
    if add is None or factor is None or square is None or centred is None or square.inputs[0] is not square.inputs[1]:
        return None
    unbiased, epsilon, own = number_of(factor.inputs[1]), number_of(add.inputs[1]), producer_of(mean, "GlobalAveragePool")
    source = centred.inputs[0]
    if unbiased is None or epsilon is None or own is None or own.inputs[0] is not source or centred.inputs[1] is not mean:
        return None
    assert source is not None
    assert mean is not None
    return MapStatistics(source, mean, unbiased, epsilon)


def number_of(value: ir.Value | None) -> float | None:
    """Return the only number of a constant; None for other tensors."""
    array = constant_of(value)
    return float(array.ravel()[0]) if array is not None and array.size == 1 else None


def variance_weights(pixels: int, unbiased: float) -> tuple[float, float]:
    """Return the factors of norm^2 and of mean^2 whose sum is the variance of a map."""
    return unbiased / pixels, -unbiased


def _aggregation(relu: ir.Node) -> list[Scale] | None:
    """Return the scales of an aggregation that a Relu ends, the current map's first; None for other nodes."""
    add = sole_producer(relu.inputs[0], "Add") if relu.op_type == "Relu" and not relu.outputs[0].is_graph_output() else None
    terms: list[ir.Value | None] = []
    while add is not None:
        terms.insert(0, add.inputs[1])
        first, add = add.inputs[0], sole_producer(add.inputs[0], "Add")
        if add is None:
            terms.insert(0, first)
    own = sole_producer(terms[0], "Mul") if len(terms) > 1 else None
    weight = number_of(own.inputs[1]) if own is not None else None
    if own is None or weight is None or own.inputs[0] is None:
        return None
    scales = [Scale(own.inputs[0], weight)]
    for term in terms[1:]:
        repeat = producer_of(term, "Concat")
        found = _weighted_sum(repeat.inputs[0] if repeat is not None and _repeats(repeat) else term)
        if found is None:
            return None
        scales += found
    fits = all(scale.width and scales[0].width % scale.width == 0 for scale in scales)
    return scales if fits else None


def _repeats(concat: ir.Node) -> bool:
    return concat.attributes.get_int("axis", 0) == 1 and all(value is concat.inputs[0] for value in concat.inputs)


def _weighted_sum(value: ir.Value | None) -> list[Scale] | None:
    """Return the scales of ReduceSum(Mul(Concat(d_1, ..., d_n; axis 3), w); axis 3), or of Mul(d, w) for one of them."""
    total = producer_of(value, "ReduceSum")
    product = producer_of(total.inputs[0] if total is not None else value, "Mul")
    weights = constant_of(product.inputs[1]) if product is not None else None
    if product is None or weights is None:
        return None
    joined = product.inputs[0]
    stack = producer_of(joined, "Concat") if total is not None else None
    values = list(stack.inputs) if stack is not None and stack.attributes.get_int("axis", 0) == 3 else [joined]
    if weights.size != len(values):
        return None
    return [Scale(one, float(weight)) for one, weight in zip(values, weights.ravel(), strict=True) if one is not None]


def _mixing(scales: list[Scale]) -> npt.NDArray[np.float32]:
    """Return the weight (groups of the sum, groups of the stack, 1, 1) of the convolution that sums over maps."""
    width = gcd(*(scale.width for scale in scales))
    groups = scales[0].width // width
    blocks = [scale.weight * np.tile(np.eye(scale.width // width), (scales[0].width // scale.width, 1)) for scale in scales]
    return np.concatenate(blocks, 1).astype(np.float32).reshape(groups, -1, 1, 1)


class _Writer:
    """Writes the nodes of one aggregation in front of the Relu that ends it."""

    def __init__(self, graph: ir.Graph, relu: ir.Node, scales: list[Scale]) -> None:
        self.graph, self.relu = graph, relu
        self.base = str(relu.name).rpartition(".")[0] or str(relu.name)
        self.batch = relu.outputs[0].shape[0] if relu.outputs[0].shape is not None else None
        self.width = gcd(*(scale.width for scale in scales))

    def node(self, op_type: str, inputs: list[ir.Value | None], part: str, sides: list[int], **attributes: int) -> ir.Value:
        """Return the result (N, *sides) of a new node."""
        shape = ir.Shape([self.batch, *sides])
        name = f"{self.base}.{part}"
        return insert_node(self.graph, self.relu, op_type, inputs, name, self.relu.outputs[0], shape=shape, attributes=attributes)

    def stack(self, values: list[ir.Value]) -> ir.Value:
        """Return descriptors (N, C_i, 1, 1) as one stack (N, groups, width, 1)."""
        channels = sum(Scale(value, 1.0).width for value in values)
        joined = self.node("Concat", list(values), "stack", [channels, 1, 1], axis=1)
        return self.reshape(joined, [channels // self.width, self.width, 1], "groups")

    def reshape(self, value: ir.Value, sides: list[int], part: str) -> ir.Value:
        """Return a tensor with other sides."""
        return self.node("Reshape", [value, int64_constant(self.graph, f"{self.base}.{part}.shape", [-1, *sides])], part, sides)

    def mix(self, stack: ir.Value, weight: npt.NDArray[np.float32], part: str, bias: float | None = None) -> ir.Value:
        """Return weighted sums of a stack's groups, plus a number."""
        inputs: list[ir.Value | None] = [stack, new_constant(self.graph, f"{self.base}.{part}.weight", weight)]
        if bias is not None:
            inputs.append(new_constant(self.graph, f"{self.base}.{part}.bias", np.full(len(weight), bias, np.float32)))
        return self.node("Conv", inputs, part, [len(weight), self.width, 1])


def _stacked_means(graph: ir.Graph, relu: ir.Node, scales: list[Scale]) -> ir.Value:
    writer, weight = _Writer(graph, relu, scales), _mixing(scales)
    mixed = writer.mix(writer.stack([scale.descriptor for scale in scales]), weight, "mix")
    positive = writer.node("Relu", [mixed], "positive", [len(weight), writer.width, 1])
    return writer.reshape(positive, [scales[0].width, 1, 1], "descriptor")


def _stacked_styles(graph: ir.Graph, relu: ir.Node, scales: list[Scale], styles: list[MapStatistics]) -> ir.Value:
    writer, weight = _Writer(graph, relu, scales), _mixing(scales)
    width, sums, groups = writer.width, len(weight), weight.shape[1]
    norms = [_norm(graph, style) for style in styles]
    stack = writer.stack([*(style.mean for style in styles), *norms])
    squares = writer.node("Mul", [stack, stack], "squares", [2 * groups, width, 1])
    of_norm, of_mean = np.zeros((groups, groups)), np.zeros((groups, groups))
    row = 0
    for scale, style in zip(scales, styles, strict=True):
        for _ in range(scale.width // width):
            of_norm[row, row], of_mean[row, row] = variance_weights(style.pixels, style.unbiased)
            row += 1
    spread = np.concatenate([of_mean, of_norm], 1).astype(np.float32)[:, :, None, None]
    epsilon = styles[0].epsilon
    variance = writer.mix(squares, spread, "variance", epsilon)
    least = new_constant(graph, f"{writer.base}.clip.least", np.array(epsilon, np.float32))
    # Rounding may leave a variance of nearly equal pixels below zero.
    clipped = writer.node("Clip", [variance, least], "clip", [groups, width, 1])
    deviation = writer.node("Sqrt", [clipped], "deviation", [groups, width, 1])
    means = writer.mix(stack, np.concatenate([weight, np.zeros_like(weight)], 1), "mix_means")
    mixed = writer.mix(deviation, weight, "mix_deviations")
    joined = writer.node("Concat", [means, mixed], "styles", [sums, width, 2], axis=3)
    positive = writer.node("Relu", [joined], "positive", [sums, width, 2])
    return writer.reshape(positive, [scales[0].width, 2, 1], "descriptor")


def _norm(graph: ir.Graph, style: MapStatistics) -> ir.Value:
    """Return the Euclidean norm of each channel of a map, next to its mean; one node for all aggregations that read the map."""
    for use in style.source.uses():
        if use.node.op_type == "ReduceL2" and reduced_axes(use.node) == [2, 3]:
            return use.node.outputs[0]
    pool = style.mean.producer()
    assert pool is not None
    name = f"{str(pool.name).rpartition('.')[0]}.norm"
    axes = int64_constant(graph, f"{name}.axes", [2, 3])
    return insert_node(graph, pool, "ReduceL2", [style.source, axes], name, style.mean)
