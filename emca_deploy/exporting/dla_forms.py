"""Rewrites channel attention and the head into forms that a DLA runs: the same numbers, up to the order of sums.

Global poolings become chains of windows. ECA's convolution along the channels becomes a 1x1 convolution with a banded matrix.
Products of two axes become 1x1 convolutions. Weighted sums over scales and scalar factors become depthwise convolutions. SRM's
pair of statistics is never stacked. `dla_rules.nodes_off_dla` lists the nodes that no DLA runs even so.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.canonical.edit import ints_of, only_reader
from emca_deploy.canonical.unstacking import unstack_scales
from emca_deploy.exporting.dla_edit import (
    Editor,
    channels_of,
    constant_of,
    is_descriptor,
    sides_of,
    skip_reshaping,
    split_constant,
)
from emca_deploy.exporting.dla_products import lift_products
from emca_deploy.exporting.dla_rules import LARGEST_KERNEL, LARGEST_WINDOW, MOST_MAPS, OffDla, nodes_off_dla

__all__ = ["DlaForms", "to_dla", "windows"]

SMALLEST_BAND = 2


@dataclass(frozen=True)
class DlaForms:
    """The number of rewrites by form, and the nodes that no DLA runs.

    Attributes:
        poolings: Means of whole maps that became chains.
        bands: Convolutions along the channels that became banded 1x1 convolutions.
        products: Products of two axes that became 1x1 convolutions.
        sums: Weighted sums over scales.
        scales: Factors and offsets.
        stacks: Convolutions over stacked statistics.
        weights_before: Numbers in the model's constants before.
        weights_after: Numbers in the model's constants after; a band of C channels has C * C.
        remaining: Nodes that no DLA runs.
    """

    poolings: int
    bands: int
    products: int
    sums: int
    scales: int
    stacks: int
    weights_before: int
    weights_after: int
    remaining: tuple[OffDla, ...]


def to_dla(model: ir.Model) -> DlaForms:
    """Rewrite a float32 classifier for a DLA, in place. The model has its tensors' shapes; the batch may be dynamic."""
    unstack_scales(model)
    editor = Editor(model)

    def weights() -> int:
        return sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)

    before = weights()
    counts = {
        "poolings": editor.replace(lambda node: _pooled(editor, node)),
        "bands": _band_convolutions(editor),
        "products": lift_products(editor),
        "sums": editor.replace(lambda node: _weighted_sum(editor, node)),
        "scales": editor.replace(lambda node: _scale(editor, node)),
        "stacks": _unstack_rows(editor),
    }
    return DlaForms(**counts, weights_before=before, weights_after=weights(), remaining=tuple(nodes_off_dla(model.graph)))


def _band_convolutions(editor: Editor) -> int:
    """Turn every one-channel convolution along the channels of a descriptor into a 1x1 convolution with a banded matrix."""
    bands: list[tuple[ir.Value, str | None]] = []
    for node in list(editor.graph):
        kernel = _channel_kernel(node)
        source = skip_reshaping(node.inputs[0]) if kernel is not None else None
        target = _reshaped_back(node.outputs[0]) if source is not None else None
        if kernel is None or source is None or target is None:
            continue
        taps, before = kernel
        channels = channels_of(source)
        if not SMALLEST_BAND <= channels <= MOST_MAPS or channels_of(target) != channels:
            continue
        bias = constant_of(node, 2)
        offsets = np.full(channels, float(bias.ravel()[0]), np.float32) if bias is not None else None
        band = editor.convolve(node, source, _band(taps, before, channels), offsets, f"{node.name}.band")
        editor.take_over(target, band)
        bands.append((band, node.name))
    editor.sweep()
    for band, name in bands:
        editor.rename(band, name)
    return len(bands)


def _channel_kernel(node: ir.Node) -> tuple[npt.NDArray[np.float64], int] | None:
    """Return the taps and leading padding of a one-channel convolution along one axis that keeps its length, or None."""
    weight = constant_of(node, 1) if node.op_type == "Conv" else None
    if weight is None or weight.shape[:2] != (1, 1) or max(weight.shape) != weight.size or weight.ndim not in (3, 4):
        return None
    if {*ints_of(node, "strides", [1]), *ints_of(node, "dilations", [1])} != {1}:
        return None
    axes = weight.ndim - 2
    pads = ints_of(node, "pads", [0] * (2 * axes))
    sides = (sides_of(node.inputs[0]) or [])[2:]
    long = [index for index, side in enumerate(sides) if side != 1]
    if len(long) != 1 or len(pads) != 2 * axes or weight.shape[2 + long[0]] != weight.size:
        return None
    before, after = pads[long[0]], pads[long[0] + axes]
    return (weight.ravel(), before) if before + after == weight.size - 1 and sum(pads) == before + after else None


def _reshaped_back(value: ir.Value) -> ir.Value | None:
    """Return the descriptor (N, C, 1, 1) that a value is or that its only readers reshape it to, or None."""
    while not is_descriptor(value):
        reader = only_reader(value)
        if (
            reader is None
            or reader.op_type not in {"Reshape", "Squeeze", "Unsqueeze", "Transpose"}
            or reader.inputs[0] is not value
        ):
            return None
        value = reader.outputs[0]
    return value if skip_reshaping(value) is value else None


def _band(taps: npt.NDArray[np.float64], before: int, channels: int) -> npt.NDArray[np.float32]:
    """Return the weight (C, C, 1, 1) of the same convolution: row i has tap t at column i + t - before."""
    diagonals = (tap * np.eye(channels, k=offset) for offset, tap in enumerate(taps, -before))
    return sum(diagonals, np.zeros((channels, channels))).astype(np.float32)[:, :, None, None]


def _weighted_sum(editor: Editor, node: ir.Node) -> ir.Value | None:
    """Return the sum over scales, ReduceSum(Mul(Concat(d1, ..., dn), w)) along the last axis, as a sum of scaled descriptors."""
    axes = constant_of(node, 1) if node.op_type == "ReduceSum" else None
    product = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if axes is None or [int(axis) % 4 for axis in axes.ravel()] != [3] or product is None or product.op_type != "Mul":
        return None
    if node.attributes.get_int("keepdims", 1) != 1:
        return None
    joined, weights = split_constant(product)
    stack = joined.producer() if joined is not None else None
    if weights is None or stack is None or stack.op_type != "Concat" or stack.attributes.get_int("axis", 0) not in (3, -1):
        return None
    parts = [value for value in stack.inputs if value is not None]
    fits = all(channels_of(part) and (sides_of(part) or [])[3:] == [1] for part in parts)
    if not fits or weights.shape not in {(1, 1, 1, len(parts)), (len(parts),)}:
        return None
    factors = [np.full(channels_of(part), weight) for part, weight in zip(parts, weights.ravel(), strict=True)]
    return editor.sum_scaled(node, parts, factors, np.zeros(channels_of(parts[0])))


def _scale(editor: Editor, node: ir.Node) -> ir.Value | None:
    """Return the product or sum of a descriptor and a constant as a depthwise convolution; successive ones are joined."""
    if node.op_type not in {"Mul", "Add"} or len(node.inputs) != 2:
        return None
    value, number = split_constant(node)
    sides, channels = sides_of(value), channels_of(value)
    if number is None or value is None or sides is None or len(sides) != 4 or sides[3] != 1 or not channels:
        return None
    if number.size != 1 and number.shape[-3:] != (channels, 1, 1):
        return None
    by_channel = np.broadcast_to(number.ravel(), channels).astype(np.float64)
    factor, offset = (by_channel, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), by_channel)
    return editor.scale(node, value, factor, offset, f"{node.name}.scale")


def windows(side: int) -> list[int] | None:
    """Return the fewest windows of at most 8 whose product is `side`, the largest first; the last may be a kernel of up to 32.

    56 is 8 * 7, 28 is 7 * 4, 14 is 7 * 2. Where windows cover a map without overlap, the mean of their means is its mean. The
    result is None where there is no such product.
    """
    best: list[int] | None = [] if side == 1 else None
    for window in range(LARGEST_WINDOW, 1, -1):
        if side % window == 0:
            rest = windows(side // window)
            if rest is not None and (best is None or len(rest) + 1 < len(best)):
                best = [window, *rest]
    if best is None and side <= LARGEST_KERNEL:
        best = [side]
    return sorted(best, reverse=True) if best is not None and max(best, default=1) <= LARGEST_WINDOW else best


def _pooled(editor: Editor, node: ir.Node) -> ir.Value | None:
    """Return the mean over a whole map in steps, or None. A map of one pixel keeps a pooling of one, which marks attention."""
    value, sides = node.inputs[0], sides_of(node.inputs[0])
    if not _pools_globally(node) or value is None or sides is None or len(sides) != 4:
        return None
    height, width = (windows(side) if isinstance(side, int) else None for side in sides[2:])
    if height is None or width is None or not channels_of(value):
        return None
    result = _steps(editor, node, value, height or [1], width or [1])
    if node.attributes.get_int("keepdims", 1) == 0:
        shape = editor.constant(f"{node.name}.shape", np.array([0, -1], np.int64))
        result = editor.insert(node, "Reshape", [result, shape], f"{node.name}.flat", [sides[0], channels_of(value)])
    return result


def _pools_globally(node: ir.Node) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    attribute = node.attributes.get("axes")
    axes = np.array(attribute.as_ints()) if attribute is not None else constant_of(node, 1)
    return axes is not None and sorted(int(axis) % 4 for axis in axes.ravel()) == [2, 3]


def _steps(editor: Editor, node: ir.Node, value: ir.Value, rows: list[int], columns: list[int]) -> ir.Value:
    """Return the mean of maps (N, C, H, W) as (N, C, 1, 1), in one step per window of rows and columns."""
    batch, channels, height, width = (sides_of(value) or [])[0], channels_of(value), prod(rows), prod(columns)
    count = max(len(rows), len(columns))
    steps = list(zip(_filled(rows, count), _filled(columns, count), strict=True))
    if max(steps[-1]) > LARGEST_WINDOW:
        steps.append((1, 1))  # attention is recognized by the pooling it begins with
    for index, (tall, wide) in enumerate(steps):
        height, width = height // tall, width // wide
        name, shape = f"{node.name}.step{index}", [batch, channels, height, width]
        if max(tall, wide) <= LARGEST_WINDOW:
            sizes = {"kernel_shape": [tall, wide], "strides": [tall, wide]}
            value = editor.insert(node, "AveragePool", [value], name, shape, **sizes)
        else:
            weight = editor.constant(f"{name}.weight", np.full((channels, 1, tall, wide), 1 / (tall * wide), np.float32))
            value = editor.insert(node, "Conv", [value, weight], name, shape, kernel_shape=[tall, wide], group=channels)
    return value


def _filled(steps: list[int], count: int) -> list[int]:
    """Return `count` steps by adding windows of 1; a kernel, which does not stride, must come last."""
    ones = [1] * (count - len(steps))
    return [*ones, *steps] if steps[-1] > LARGEST_WINDOW else [*steps, *ones]


def _unstack_rows(editor: Editor) -> int:
    """Turn depthwise convolutions over stacked statistics (N, C, K, 1) into sums over the K statistics; return their number."""
    rows_of = _Rows(editor)

    def unstacked(node: ir.Node) -> ir.Value | None:
        weight = constant_of(node, 1) if node.op_type == "Conv" else None
        if weight is None or weight.ndim != 4 or weight.shape[1] != 1 or weight.shape[2] < 2 or weight.shape[3] != 1:
            return None
        value, channels = node.inputs[0], weight.shape[0]
        fits = is_descriptor(value, weight.shape[2]) and channels_of(value) == channels and is_descriptor(node.outputs[0])
        rows = rows_of(value) if fits else None
        if rows is None:
            return None
        bias = constant_of(node, 2)
        return editor.sum_scaled(node, rows, list(weight[:, 0, :, 0].T), np.zeros(channels) if bias is None else bias)

    return editor.replace(unstacked)


class _Rows:
    """Splits stacked descriptors into their rows by computing each row separately, once."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._known: dict[ir.Value, list[ir.Value] | None] = {}

    def __call__(self, value: ir.Value | None) -> list[ir.Value] | None:
        """Return the rows (N, C, 1, 1) of (N, C, K, 1), or None where it cannot be split."""
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = self._split(value)
        return self._known[value]

    def _split(self, value: ir.Value) -> list[ir.Value] | None:
        node = value.producer()
        if node is None:
            return None
        axis = node.attributes.get_int("axis", 0) if node.op_type == "Concat" else None
        if axis in (2, -2):
            parts = [one for one in node.inputs if one is not None]
            return parts if all(is_descriptor(part) for part in parts) else None
        if node in self._editor.scales:
            factor, offset = self._editor.scales[node]
            rows = self(node.inputs[0]) or []
            return [self._editor.scale(node, row, factor, offset, f"{node.name}.row{n}") for n, row in enumerate(rows)] or None
        if node.op_type in {"Relu", "Add"} or axis in (1, -3):
            return self._each(node, axis)
        return None

    def _each(self, node: ir.Node, axis: int | None) -> list[ir.Value] | None:
        """Return the rows of a node that does the same with every row."""
        known = [self(value) or [] for value in node.inputs]
        if not all(known) or len({len(rows) for rows in known}) != 1:
            return None
        attributes = {} if axis is None else {"axis": 1}
        results = []
        for index, row in enumerate(zip(*known, strict=True)):
            sides = [*(sides_of(node.outputs[0]) or [])[:2], 1, 1]
            results.append(self._editor.insert(node, node.op_type, list(row), f"{node.name}.row{index}", sides, **attributes))
        return results
