"""The mean of a whole map in steps that a DLA has: windows of at most 8, and for primes beyond that a depthwise convolution."""

from math import prod

import numpy as np
import onnx_ir as ir

from emca_deploy.exporting.dla_edit import Editor, channels_of, constant_of, sides_of
from emca_deploy.exporting.dla_rules import LARGEST_KERNEL, LARGEST_WINDOW

__all__ = ["pool_in_steps", "windows"]


def windows(side: int) -> list[int] | None:
    """Return the fewest windows of at most 8 whose product is `side`, the largest first; the last may be a kernel of up to 32.

    56 is 8 * 7, 28 is 7 * 4, 14 is 7 * 2. Where windows cover a map without overlap, the mean of their means is its mean.

    Returns:
        None where no such product exists: a prime factor above 32.
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


def pool_in_steps(editor: Editor) -> int:
    """Replace every mean over whole maps by steps, in place.

    A map of one pixel keeps a pooling of one, by which attention is known.

    Returns:
        How many were replaced; those of maps with other sides stay.
    """
    return editor.replace(lambda node: _pooled(editor, node))


def _pooled(editor: Editor, node: ir.Node) -> ir.Value | None:
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
    """Return the mean of maps (N, C, H, W) as (N, C, 1, 1), a step for every window of its rows and its columns."""
    sides = sides_of(value)
    assert sides is not None  # the caller has looked
    channels, height, width = channels_of(value), prod(rows), prod(columns)
    count = max(len(rows), len(columns))
    steps = list(zip(_filled(rows, count), _filled(columns, count), strict=True))
    if max(steps[-1]) > LARGEST_WINDOW:
        steps.append((1, 1))  # attention is known by the pooling it begins with
    for index, (tall, wide) in enumerate(steps):
        height, width = height // tall, width // wide
        name, shape = f"{node.name}.step{index}", [sides[0], channels, height, width]
        if max(tall, wide) <= LARGEST_WINDOW:
            sizes = {"kernel_shape": [tall, wide], "strides": [tall, wide]}
            value = editor.insert(node, "AveragePool", [value], name, shape, **sizes)
        else:
            weight = editor.constant(f"{name}.weight", np.full((channels, 1, tall, wide), 1 / (tall * wide), np.float32))
            value = editor.insert(node, "Conv", [value, weight], name, shape, kernel_shape=[tall, wide], group=channels)
    return value


def _filled(steps: list[int], count: int) -> list[int]:
    """Return as many steps as the other side has; a kernel, which does not stride, must come last."""
    ones = [1] * (count - len(steps))
    return [*ones, *steps] if steps[-1] > LARGEST_WINDOW else [*steps, *ones]
