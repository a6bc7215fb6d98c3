"""Graph surgery that the DLA forms share: new nodes in front of old ones, new constants, and results that take over a name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Editor", "channels_of", "constant_of", "is_descriptor", "sides_of", "skip_reshaping", "sole_reader"]

SHAPE_ONLY = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
Array = npt.NDArray[np.float32]


@dataclass
class Editor:
    """Edits one graph.

    Attributes:
        graph: in place.
        scales: depthwise 1x1 convolutions made here, with their factor and offset per channel: those that can be joined.
    """

    graph: ir.Graph
    scales: dict[ir.Node, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = field(default_factory=dict)

    def constant(self, name: str, numbers: npt.NDArray[np.generic]) -> ir.Value:
        """Return a new initializer."""
        tensor = ir.tensor(numbers, name=name)
        value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(numbers.shape), type=ir.TensorType(tensor.dtype))
        self.graph.register_initializer(value)
        return value

    def insert(
        self, before: ir.Node, operator: str, inputs: Sequence[ir.Value | None], name: str, shape: Sequence[int | ir.SymbolicDim],
        **attributes: int | Sequence[int],
    ) -> ir.Value:  # fmt: skip
        """Return the result of a new node in front of another; float32 of the given shape."""
        node = ir.node(operator, list(inputs), attributes=attributes, name=name)
        result = node.outputs[0]
        result.name, result.shape, result.type = name, ir.Shape(list(shape)), ir.TensorType(ir.DataType.FLOAT)
        self.graph.insert_before(before, node)
        return result

    def convolve(
        self, before: ir.Node, value: ir.Value, weight: Array, bias: Array | None, name: str, groups: int = 1
    ) -> ir.Value:
        """Return a convolution without padding whose kernel covers all of a descriptor's (N, C, H, 1) rows, or one of each.

        Args:
            before: node to put it in front of.
            value: (N, C, H, 1).
            weight: (maps, C / groups, 1, 1).
            bias: (maps,).
            name: of node and result.
            groups: of channels.
        """
        batch, rows = (value.shape or [])[0], (value.shape or [])[2]
        inputs = [value, self.constant(f"{name}.weight", weight.astype(np.float32))]
        if bias is not None and bias.any():
            inputs.append(self.constant(f"{name}.bias", bias.astype(np.float32)))
        shape = [batch, len(weight), rows, 1]
        return self.insert(before, "Conv", inputs, name, shape, kernel_shape=[1, 1], group=groups)

    def scale(
        self, before: ir.Node, value: ir.Value, factor: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], name: str
    ) -> ir.Value:
        """Return value * factor + offset by channel, as a depthwise convolution; one that is made here already takes it over.

        Args:
            before: node to put it in front of.
            value: (N, C, H, 1).
            factor: (C,).
            offset: (C,).
            name: of node and result.
        """
        producer = value.producer()
        if producer is not None and producer in self.scales and len(value.uses()) <= 1:
            own_factor, own_offset = self.scales[producer]
            source = producer.inputs[0]
            assert source is not None
            return self.scale(before, source, own_factor * factor, own_offset * factor + offset, name)
        weight = factor.astype(np.float32).reshape(-1, 1, 1, 1)
        result = self.convolve(before, value, weight, offset.astype(np.float32), name, len(weight))
        made = result.producer()
        assert made is not None
        self.scales[made] = (factor, offset)
        return result

    def take_over(self, old: ir.Value, new: ir.Value) -> None:
        """Let all who read `old` read `new`, which gets its name, as its node gets the name of the old one's."""
        outputs = self.graph.outputs
        for index, value in enumerate(outputs):
            if value is old:
                outputs[index] = new
        for use in list(old.uses()):
            use.node.replace_input_with(use.idx, new)
        name, old.name = old.name, f"{old.name}.replaced"
        new.name = name
        before, after = old.producer(), new.producer()
        if before is not None and after is not None:
            before.name, after.name = f"{before.name}.replaced", before.name

    def rename(self, value: ir.Value, name: str | None) -> None:
        """Name a value and its node after a node that is gone; a result of the network keeps its name."""
        node = value.producer()
        if node is not None and name:
            node.name = name
            if not value.is_graph_output():
                value.name = name

    def sweep(self) -> None:
        """Remove nodes and constants that nobody reads any more."""
        waiting = list(reversed(list(self.graph)))
        for node in waiting:
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                self.graph.initializers.pop(name)


def sides_of(value: ir.Value | None) -> list[int | ir.SymbolicDim] | None:
    """Return a value's shape, or None where it is not known."""
    return list(value.shape) if value is not None and value.shape is not None else None


def channels_of(value: ir.Value | None) -> int:
    """Return C of (N, C, ...), 0 where it is not known."""
    sides = sides_of(value) or []
    return sides[1] if len(sides) > 1 and isinstance(sides[1], int) else 0


def is_descriptor(value: ir.Value | None, rows: int = 1) -> bool:
    """Return whether a value is (N, C, rows, 1) with known C."""
    sides = sides_of(value)
    return sides is not None and len(sides) == 4 and channels_of(value) > 0 and sides[2:] == [rows, 1]


def constant_of(node: ir.Node, index: int) -> npt.NDArray[np.float64] | None:
    """Return a constant input as float64, or None where it is none."""
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy(), np.float64)


def skip_reshaping(value: ir.Value | None) -> ir.Value | None:
    """Return the descriptor (N, C, 1, 1) that a value is a mere reshaping of, or None.

    All in between must hold the same C numbers of each image along one axis, so that no reordering is possible.
    """
    start = value
    while value is not None:
        if is_descriptor(value):
            return value if _same_numbers(value, start) else None
        producer = value.producer()
        if producer is None or producer.op_type not in SHAPE_ONLY or not _is_row(value):
            return None
        value = producer.inputs[0]
    return None


def sole_reader(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a value, or None where there are more, or it is a result of the network."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _is_row(value: ir.Value) -> bool:
    """Return whether a value has one axis besides the batch that is not 1."""
    sides = sides_of(value)
    return (
        sides is not None
        and len(sides) > 1
        and all(isinstance(side, int) for side in sides[1:])
        and sides[1:].count(1) >= len(sides) - 2
    )


def _same_numbers(first: ir.Value, second: ir.Value | None) -> bool:
    one, other = sides_of(first) or [], sides_of(second) or []
    sizes = [prod(side for side in sides[1:] if isinstance(side, int)) for sides in (one, other)]
    return sizes[0] == sizes[1] and str(one[0]) == str(other[0])
