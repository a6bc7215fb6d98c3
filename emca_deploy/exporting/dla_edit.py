"""Edits of a graph that the DLA forms share: new nodes and constants, and results that replace others under their names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.arrays import Float64Array
from emca_deploy.canonical import edit

__all__ = ["Editor", "channels_of", "constant_of", "is_descriptor", "sides_of", "skip_reshaping", "split_constant"]

SHAPE_ONLY = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
Array = npt.NDArray[np.float32]


@dataclass
class Editor:
    """Edits one model in place.

    Attributes:
        scales: Factor and offset per channel of each depthwise 1x1 convolution made here, which can be joined with others.
    """

    model: ir.Model
    scales: dict[ir.Node, tuple[Float64Array, Float64Array]] = field(default_factory=dict)

    @property
    def graph(self) -> ir.Graph:
        """The model's graph."""
        return self.model.graph

    def replace(self, make: Callable[[ir.Node], ir.Value | None]) -> int:
        """Replace the result of each node for which `make` returns another; return how many were replaced."""
        count = 0
        for node in list(self.graph):
            made = make(node)
            if made is not None:
                self.take_over(node.outputs[0], made)
                count += 1
        self.sweep()
        return count

    def constant(self, name: str, numbers: npt.NDArray[np.generic]) -> ir.Value:
        """Return a new initializer."""
        return edit.new_constant(self.graph, name, numbers)

    def insert(
        self, before: ir.Node, operator: str, inputs: Sequence[ir.Value | None], name: str, shape: Sequence[int | ir.SymbolicDim],
        **attributes: int | Sequence[int],
    ) -> ir.Value:  # fmt: skip
        """Return the result, float32 of the given shape, of a new node in front of another."""
        node = ir.node(operator, list(inputs), attributes=attributes, name=name)
        result = node.outputs[0]
        result.name, result.shape, result.type = name, ir.Shape(list(shape)), ir.TensorType(ir.DataType.FLOAT)
        self.graph.insert_before(before, node)
        return result

    def convolve(
        self, before: ir.Node, value: ir.Value, weight: Array, bias: Array | None, name: str, groups: int = 1
    ) -> ir.Value:
        """Return a 1x1 convolution of a descriptor (N, C, H, 1), in front of a node.

        The weight is (maps, C / groups, 1, 1), the bias (maps,); node and result get the `name`.
        """
        batch, rows = (value.shape or [])[0], (value.shape or [])[2]
        inputs = [value, self.constant(f"{name}.weight", weight.astype(np.float32))]
        if bias is not None and bias.any():
            inputs.append(self.constant(f"{name}.bias", bias.astype(np.float32)))
        shape = [batch, len(weight), rows, 1]
        return self.insert(before, "Conv", inputs, name, shape, kernel_shape=[1, 1], group=groups)

    def scale(self, before: ir.Node, value: ir.Value, factor: Float64Array, offset: Float64Array, name: str) -> ir.Value:
        """Return a descriptor (N, C, H, 1) * factor (C,) + offset (C,) as a depthwise convolution in front of a node.

        Where the value is such a convolution made here, the two are joined.
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

    def sum_scaled(
        self, node: ir.Node, parts: Sequence[ir.Value], factors: Sequence[Float64Array], offset: Float64Array
    ) -> ir.Value:
        """Return the sum of parts (N, C, 1, 1), each times its factor (C,), plus an offset (C,), in front of a node."""
        total: ir.Value | None = None
        for index, (part, factor) in enumerate(zip(parts, factors, strict=True)):
            own = offset if total is None else np.zeros_like(offset)
            term = self.scale(node, part, factor, own, f"{node.name}.scale{index}")
            sides = sides_of(part) or []
            total = term if total is None else self.insert(node, "Add", [total, term], f"{node.name}.sum{index}", sides)
        assert total is not None  # there is a part
        return total

    def take_over(self, old: ir.Value, new: ir.Value) -> None:
        """Let all readers of `old` read `new`, which gets its name; the node that makes `new` gets the old node's name."""
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        name, old.name = old.name, f"{old.name}.replaced"
        new.name = name
        before, after = old.producer(), new.producer()
        if before is not None and after is not None:
            before.name, after.name = f"{before.name}.replaced", before.name

    def rename(self, value: ir.Value, name: str | None) -> None:
        """Name a value and its node after a removed node; a result of the network keeps its name."""
        node = value.producer()
        if node is not None and name:
            node.name = name
            if not value.is_graph_output():
                value.name = name

    def sweep(self) -> None:
        """Remove nodes and constants that are no longer read."""
        common.RemoveUnusedNodesPass()(self.model)


def sides_of(value: ir.Value | None) -> list[int | ir.SymbolicDim] | None:
    """Return a value's shape, or None where it is unknown."""
    return list(value.shape) if value is not None and value.shape is not None else None


def channels_of(value: ir.Value | None) -> int:
    """Return C of (N, C, ...), or 0 where it is unknown."""
    sides = sides_of(value) or []
    return sides[1] if len(sides) > 1 and isinstance(sides[1], int) else 0


def is_descriptor(value: ir.Value | None, rows: int = 1) -> bool:
    """Return whether a value is (N, C, rows, 1) with known C."""
    sides = sides_of(value)
    return sides is not None and len(sides) == 4 and channels_of(value) > 0 and sides[2:] == [rows, 1]


def constant_of(node: ir.Node, index: int) -> Float64Array | None:
    """Return a constant input as float64, or None where it is not constant."""
    found = edit.constant_of(node.inputs[index] if len(node.inputs) > index else None)
    return None if found is None else found.astype(np.float64)


def split_constant(node: ir.Node) -> tuple[ir.Value | None, Float64Array | None]:
    """Return the computed and the constant operand of a node with two, each None where there is none."""
    constants = [constant_of(node, index) for index in (0, 1)]
    number = next((one for one in constants if one is not None), None)
    return next((one for one, constant in zip(node.inputs, constants, strict=True) if constant is None), None), number


def skip_reshaping(value: ir.Value | None) -> ir.Value | None:
    """Return the descriptor (N, C, 1, 1) that a value is only a reshaping of, or None.

    All values in between must have the same C numbers of each image along one axis, which rules out reordering.
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


def _is_row(value: ir.Value) -> bool:
    """Return whether at most one axis of a value, apart from the batch, is not 1."""
    sides = (sides_of(value) or [])[1:]
    return bool(sides) and all(isinstance(side, int) for side in sides) and sides.count(1) >= len(sides) - 1


def _same_numbers(first: ir.Value, second: ir.Value | None) -> bool:
    one, other = sides_of(first) or [], sides_of(second) or []
    sizes = [prod(side for side in sides[1:] if isinstance(side, int)) for sides in (one, other)]
    return sizes[0] == sizes[1] and str(one[0]) == str(other[0])
