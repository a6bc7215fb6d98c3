"""SRM's two statistics of a map, mean and standard deviation, each for itself instead of stacked along an axis no DLA joins."""

import numpy as np
import onnx_ir as ir

from emca_deploy.exporting.dla_edit import Editor, channels_of, constant_of, is_descriptor, sides_of

__all__ = ["unstack_rows"]


def unstack_rows(editor: Editor) -> int:
    """Turn depthwise convolutions over stacked statistics (N, C, K, 1) into a sum over the K statistics, in place.

    Returns:
        How many convolutions were turned.
    """
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
    """Splits stacked descriptors into their rows by computing every row for itself, each once."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._known: dict[ir.Value, list[ir.Value] | None] = {}

    def __call__(self, value: ir.Value | None) -> list[ir.Value] | None:
        """Return the rows (N, C, 1, 1) of (N, C, K, 1), or None where it is not made of such."""
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
            return self._scaled(node)
        if node.op_type in {"Relu", "Add"} or axis in (1, -3):
            return self._each(node, axis)
        return None

    def _scaled(self, node: ir.Node) -> list[ir.Value] | None:
        factor, offset = self._editor.scales[node]
        rows = self(node.inputs[0])
        if rows is None:
            return None
        return [self._editor.scale(node, row, factor, offset, f"{node.name}.row{index}") for index, row in enumerate(rows)]

    def _each(self, node: ir.Node, axis: int | None) -> list[ir.Value] | None:
        """Return the rows of a node that treats every row alike."""
        inputs = [self(value) for value in node.inputs]
        if any(rows is None for rows in inputs):
            return None
        known = [rows for rows in inputs if rows is not None]
        if len({len(rows) for rows in known}) != 1:
            return None
        attributes = {} if axis is None else {"axis": 1}
        results = []
        for index, row in enumerate(zip(*known, strict=True)):
            sides = [*(sides_of(node.outputs[0]) or [])[:2], 1, 1]
            results.append(self._editor.insert(node, node.op_type, list(row), f"{node.name}.row{index}", sides, **attributes))
        return results
