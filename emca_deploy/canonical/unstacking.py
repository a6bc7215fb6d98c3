"""Computing every map's statistics and every scale separately again, as calibration and a DLA need it.

This undoes `canonical.stacking`. Variances are taken from deviations from the mean, because a mean that is rounded to INT8 or
fp16 would cancel against the norm.
"""

from itertools import groupby

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical.edit import constant_of, insert_node, int64_constant, new_constant, producer_of
from emca_deploy.canonical.pooling import is_descriptor, reduced_axes
from emca_deploy.canonical.stacking import MapStatistics, Scale

__all__ = ["unstack_scales"]


def unstack_scales(model: ir.Model) -> bool:
    """Compute every stacked aggregation from separate descriptors, in place; return whether there was any."""
    styles: dict[ir.Value, ir.Value] = {}
    changed = False
    for relu in list(model.graph):
        mixed = relu.inputs[0] if relu.op_type == "Relu" else None
        joined = producer_of(mixed, "Concat")
        found = _stacked_styles(model.graph, joined, styles) if joined is not None else _stacked_means(mixed)
        if found is None:
            continue
        _give(relu.outputs[0], _aggregated(model.graph, relu, found))
        changed = True
    if changed:
        common.RemoveUnusedNodesPass()(model)
    return changed


def _stacked_means(mixed: ir.Value | None) -> list[Scale] | None:
    """Return the scales of a 1x1 convolution over a stack of means; None for other tensors."""
    conv = producer_of(mixed, "Conv")
    values = _stacked(conv.inputs[0]) if conv is not None else None
    weight = constant_of(conv.inputs[1]) if conv is not None and len(conv.inputs) == 2 else None
    return None if values is None or weight is None else _scales(values, weight)


def _stacked(stack: ir.Value | None) -> list[ir.Value] | None:
    """Return the descriptors of a stack Reshape(Concat(d_1, ..., d_n; axis 1)); None for other tensors."""
    reshape = producer_of(stack, "Reshape")
    concat = producer_of(reshape.inputs[0], "Concat") if reshape is not None else None
    if concat is None or concat.attributes.get_int("axis", 0) != 1 or len(list(stack.shape or [])) != 4:  # type: ignore[union-attr]
        return None
    values = [value for value in concat.inputs if value is not None]
    return values if all(is_descriptor(value) for value in values) else None


def _scales(values: list[ir.Value], weight: npt.NDArray[np.float32]) -> list[Scale] | None:
    """Return each descriptor with its weight; None where a convolution is no sum of repeated descriptors."""
    widths = [Scale(value, 0.0).width for value in values]
    if weight.ndim != 4 or weight.shape[2:] != (1, 1) or sum(widths) % weight.shape[1]:
        return None
    width, matrix, start = sum(widths) // weight.shape[1], weight[:, :, 0, 0], 0
    scales = []
    for value, channels in zip(values, widths, strict=True):
        groups = channels // width
        block = matrix[:, start : start + groups]
        start += groups
        if not groups or channels % width or len(matrix) % groups:
            return None
        if not np.array_equal(block, block[0, 0] * np.tile(np.eye(groups, dtype=np.float32), (len(matrix) // groups, 1))):
            return None
        scales.append(Scale(value, float(block[0, 0])))
    return scales if scales and widths[0] == len(matrix) * width else None


def _stacked_styles(graph: ir.Graph, joined: ir.Node, styles: dict[ir.Value, ir.Value]) -> list[Scale] | None:
    """Return the scales of SRM's stacked means and deviations, with descriptors (N, C, 2, 1); None for other nodes.

    `styles` has the descriptors that exist, by their means; new ones are added.
    """
    convs = [producer_of(value, "Conv") for value in joined.inputs]
    root = producer_of(convs[1].inputs[0], "Sqrt") if len(convs) == 2 and convs[0] and convs[1] else None
    clip = producer_of(root.inputs[0], "Clip") if root is not None else None
    variance = producer_of(clip.inputs[0], "Conv") if clip is not None else None
    square = producer_of(variance.inputs[0], "Mul") if variance is not None else None
    if square is None or variance is None or convs[0] is None or convs[1] is None or len(variance.inputs) != 3:
        return None
    stack = convs[0].inputs[0]
    values = _stacked(stack)
    weights = [constant_of(node.inputs[index]) for node, index in ((convs[1], 1), (variance, 1), (variance, 2))]
    if values is None or any(one is None for one in weights) or any(value is not stack for value in square.inputs):
        return None
    mixing, spread, epsilon = (np.asarray(one) for one in weights)
    means = values[: len(values) // 2]
    scales = _scales(means, mixing)
    if scales is None or not _pairs(means, values[len(means) :]):
        return None
    groups, descriptors = 0, []
    for scale in scales:
        pool = scale.descriptor.producer()
        assert pool is not None  # `_pairs` looked at it
        source = pool.inputs[0]
        assert source is not None
        if scale.descriptor not in styles:
            style = MapStatistics(source, scale.descriptor, -float(spread[groups, groups, 0, 0]), float(epsilon[0]))
            styles[scale.descriptor] = _style(graph, style)
        descriptors.append(Scale(styles[scale.descriptor], scale.weight))
        groups += scale.width * mixing.shape[1] // sum(one.width for one in scales)
    return descriptors


def _pairs(means: list[ir.Value], norms: list[ir.Value]) -> bool:
    """Return whether two lists have the means and the norms of the same maps."""
    for mean, norm in zip(means, norms, strict=True):
        pool, length = producer_of(mean, "GlobalAveragePool"), producer_of(norm, "ReduceL2")
        if pool is None or length is None or pool.inputs[0] is not length.inputs[0] or reduced_axes(length) != [2, 3]:
            return False
    return True


def _style(graph: ir.Graph, style: MapStatistics) -> ir.Value:
    """Return the descriptor (N, C, 2, 1) of a map: its means and deviations."""
    pool = style.mean.producer()
    assert pool is not None
    base = str(pool.name).rpartition(".")[0]
    after = list(graph)[list(graph).index(pool) + 1]
    factor = new_constant(graph, f"{base}.unbiased", np.array(style.unbiased, np.float32))
    epsilon = new_constant(graph, f"{base}.epsilon", np.array(style.epsilon, np.float32))
    centred = insert_node(graph, after, "Sub", [style.source, style.mean], f"{base}.centred", style.source)
    square = insert_node(graph, after, "Mul", [centred, centred], f"{base}.squared", style.source)
    pooled = insert_node(graph, after, "GlobalAveragePool", [square], f"{base}.variance.pool", style.mean)
    variance = insert_node(graph, after, "Mul", [pooled, factor], f"{base}.variance", style.mean)
    shifted = insert_node(graph, after, "Add", [variance, epsilon], f"{base}.variance.add", style.mean)
    root = insert_node(graph, after, "Sqrt", [shifted], f"{base}.deviation", style.mean)
    sides = list(style.mean.shape or [])
    shape, axis = ir.Shape([*sides[:2], 2, 1]), {"axis": 2}
    return insert_node(graph, after, "Concat", [style.mean, root], f"{base}.style", style.mean, shape=shape, attributes=axis)


def _aggregated(graph: ir.Graph, relu: ir.Node, scales: list[Scale]) -> ir.Value:
    """Return the aggregation of descriptors, the first of which is the current map's."""
    base = str(relu.name).rpartition(".")[0] or str(relu.name)
    own, channels = scales[0], scales[0].width
    total = _scaled(graph, relu, own, f"{base}.own")
    for number, (width, run) in enumerate(groupby(scales[1:], key=lambda scale: scale.width)):
        value = _summed(graph, relu, list(run), f"{base}.previous{number}")
        if width != channels:
            copies: list[ir.Value | None] = [value] * (channels // width)
            name = f"{base}.repeat{number}"
            value = insert_node(graph, relu, "Concat", copies, name, total, attributes={"axis": 1})
        total = insert_node(graph, relu, "Add", [total, value], f"{base}.add{number}", total)
    return insert_node(graph, relu, "Relu", [total], f"{base}.relu", total)


def _summed(graph: ir.Graph, relu: ir.Node, scales: list[Scale], name: str) -> ir.Value:
    """Return the weighted sum of descriptors of equal width."""
    if len(scales) == 1:
        return _scaled(graph, relu, scales[0], name)
    like = scales[0].descriptor
    wide = ir.Shape([*list(like.shape or [])[:3], len(scales)])
    values: list[ir.Value | None] = [scale.descriptor for scale in scales]
    stack = insert_node(graph, relu, "Concat", values, f"{name}.concat", like, shape=wide, attributes={"axis": 3})
    weights = np.array([scale.weight for scale in scales], np.float32).reshape(1, 1, 1, -1)
    product = insert_node(
        graph, relu, "Mul", [stack, new_constant(graph, f"{name}.weight", weights)], f"{name}.mul", like, shape=wide
    )
    axes = int64_constant(graph, f"{name}.axes", [3])
    return insert_node(graph, relu, "ReduceSum", [product, axes], f"{name}.reducesum", like)


def _scaled(graph: ir.Graph, relu: ir.Node, scale: Scale, name: str) -> ir.Value:
    weight = new_constant(graph, f"{name}.weight", np.array(scale.weight, np.float32).reshape(1, 1, 1, 1))
    return insert_node(graph, relu, "Mul", [scale.descriptor, weight], f"{name}.mul", scale.descriptor)


def _give(old: ir.Value, new: ir.Value) -> None:
    """Let the readers of a stacked sum read the descriptor; those that only reshape it to the descriptor's shape are bypassed."""
    for use in list(old.uses()):
        result = use.node.outputs[0]
        same = use.node.op_type == "Reshape" and result.shape is not None and list(result.shape)[1:] == list(new.shape or [])[1:]
        if same:
            ir.convenience.replace_all_uses_with(result, new)
        else:
            use.node.replace_input_with(use.idx, new)
