"""Products of two axes as 1x1 convolutions: the head, and SE's fully connected layers in other exporters' models."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.exporting.dla_edit import Editor, channels_of, constant_of, is_descriptor, sides_of, skip_reshaping

__all__ = ["lift_products"]

SAME = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Tanh"})


def lift_products(editor: Editor) -> int:
    """Compute on descriptors (N, C, 1, 1) what is computed on rows (N, C), in place; return the number of new convolutions.

    This is done where a descriptor is reshaped to a row and the row, after products and activations, back to a descriptor or to
    the network's result. The result keeps its two axes: one reshaping is left at the network's end, where it splits nothing.
    """
    lift = _Lift(editor)
    heads: list[tuple[ir.Value, ir.Value, str | None]] = []
    for node in list(editor.graph):
        result = node.outputs[0]
        if is_descriptor(result) and node.op_type in {"Reshape", "Unsqueeze"} and skip_reshaping(result) is result:
            lifted = lift(node.inputs[0], node)
            if lifted is not None and channels_of(lifted) == channels_of(result):
                editor.take_over(result, lifted)
        elif result.is_graph_output() and len(sides_of(result) or []) == 2:
            lifted = lift(result, node)
            producer = lifted.producer() if lifted is not None else None
            if lifted is not None and producer is not None and lift.made:
                shape = editor.constant(f"{node.name}.rows", np.array([0, -1], np.int64))
                row = editor.insert(node, "Reshape", [lifted, shape], f"{node.name}.row", sides_of(result) or [])
                row.type = result.type
                editor.take_over(result, row)
                heads.append((lifted, row, node.name.removesuffix(".replaced") if node.name else None))
    editor.sweep()
    for lifted, row, name in heads:
        editor.rename(row, f"{name}.reshape")
        editor.rename(lifted, name)
    return sum(node.graph is not None for node in lift.made)


class _Lift:
    """Computes rows as descriptors, each once."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.made: list[ir.Node] = []
        self._known: dict[ir.Value, ir.Value | None] = {}

    def __call__(self, value: ir.Value | None, before: ir.Node) -> ir.Value | None:
        """Return a row (N, C) as a descriptor that is computed in front of a node, or None where that is impossible."""
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = skip_reshaping(value) or self._computed(value, before)
        return self._known[value]

    def _computed(self, value: ir.Value, before: ir.Node) -> ir.Value | None:
        node = value.producer()
        if node is None or len(sides_of(value) or []) != 2:
            return None
        source = self(node.inputs[0] if node.inputs else None, before)
        if source is None:
            return None
        if node.op_type in SAME:
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            return self.editor.insert(before, node.op_type, [source], f"{node.name}.lifted", sides_of(source) or [], **attributes)
        product = _product(node, channels_of(source))
        if product is not None:
            weight, bias = product
            result = self.editor.convolve(before, source, weight[:, :, None, None], bias, f"{node.name}.conv")
            made = result.producer()
            assert made is not None
            self.made.append(made)
            return result
        offset = constant_of(node, 1) if node.op_type == "Add" else None
        if offset is not None and offset.size in (1, channels_of(source)):
            channels = channels_of(source)
            by_channel = np.broadcast_to(offset.ravel(), channels).astype(np.float64)
            return self.editor.scale(before, source, np.ones(channels), by_channel, f"{node.name}.scale")
        return None


def _product(node: ir.Node, channels: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None] | None:
    """Return weight (maps, C) and bias (maps,) of a product of rows with a constant, or None where a node is not one."""
    weight = constant_of(node, 1) if node.op_type in {"Gemm", "MatMul"} else None
    if weight is None or weight.ndim != 2 or node.attributes.get_int("transA"):
        return None
    if not node.attributes.get_int("transB"):
        weight = weight.T
    if weight.shape[1] != channels:
        return None
    bias = constant_of(node, 2)
    if bias is None and len(node.inputs) > 2:
        return None
    weight = weight * (node.attributes.get_float("alpha", 1.0) or 0.0)
    if bias is None:
        return weight.astype(np.float32), None
    offsets = bias.ravel() * (node.attributes.get_float("beta", 1.0) or 0.0)
    if offsets.size not in (1, len(weight)):
        return None
    return weight.astype(np.float32), np.broadcast_to(offsets, len(weight)).astype(np.float32)
