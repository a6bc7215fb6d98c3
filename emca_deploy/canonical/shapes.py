"""Shape arithmetic: folding the sizes that exporters compute at run time although the input's size determines them.

Each value of a small integer tensor is followed as a number or as the name of a dynamic dimension. Numbers become a constant. A
Reshape whose sizes contain the dynamic batch keeps that dimension by 0 or -1.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical.batch import image_value_of
from emca_deploy.canonical.constants import fold_constants
from emca_deploy.canonical.edit import constant_of, new_constant, set_constant, take_over

__all__ = ["Size", "dimensions", "infer_shapes", "known_sizes", "settle_shapes"]

PRIME = 1_000_003
"""Batch size during shape inference: no dimension of an image classifier, nor a product of several."""

Size = int | str | None
"""A number, the name of a dynamic dimension, or None for an unknown size."""

LARGEST_RANK = 16
MOST_ROUNDS = 64
INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32})


def settle_shapes(model: ir.Model) -> bool:
    """Fold everything that depends only on the input's size, in place; return whether there was any.

    Each branch that is taken determines the shapes after it, where another branch may follow.
    """
    changed = False
    for _ in range(MOST_ROUNDS):
        if not _fold_shapes(model):
            break
        fold_constants(model)
        _inline_branches(model.graph)
        infer_shapes(model)
        changed = True
    return changed


def known_sizes(graph: ir.Graph) -> dict[ir.Value, list[Size]]:
    """Return the values of each tensor of sizes, as far as a graph's shapes determine them."""
    known: dict[ir.Value, list[Size]] = {}
    for node in graph:
        sizes = _sizes(node, known) if node.domain == "" and node.outputs else None
        if sizes is not None:
            known[node.outputs[0]] = sizes
    return known


def dimensions(value: ir.Value | None) -> list[Size] | None:
    """Return a tensor's dimensions as numbers and names; None where its rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [side if isinstance(side, int) else side.value for side in value.shape]


def _fold_shapes(model: ir.Model) -> bool:
    """Replace sizes that are known by constants, in place; return whether there were any."""
    graph = model.graph
    known = known_sizes(graph)
    changed = False
    for node in graph:
        if node.op_type == "Reshape" and node.domain == "":
            changed |= _reshape_by_constant(graph, node, known)
    for result, sizes in known.items():
        if all(isinstance(size, int) for size in sizes) and result.uses() and not result.is_graph_output():
            scalar = result.shape is not None and len(result.shape) == 0
            kind = np.int32 if result.dtype == ir.DataType.INT32 else np.int64
            array = np.array(sizes[0] if scalar else sizes, kind)
            ir.convenience.replace_all_uses_with(result, new_constant(graph, f"{result.name}/constant", array))
            changed = True
    return changed


def _reshape_by_constant(graph: ir.Graph, node: ir.Node, known: dict[ir.Value, list[Size]]) -> bool:
    """Make a Reshape's sizes constant where at most one is dynamic, written as 0 (the input's own) or -1 (the rest)."""
    wanted, source = node.inputs[1], node.inputs[0]
    if wanted is None or source is None or wanted not in known or node.attributes.get_int("allowzero", 0) != 0:
        return False
    sizes = known[wanted]
    dynamic = [index for index, size in enumerate(sizes) if not isinstance(size, int)]
    if len(dynamic) != 1:
        return False
    at = dynamic[0]
    given = dimensions(source) or []
    same = at < len(given) and sizes[at] is not None and given[at] == sizes[at]
    if not same and -1 in sizes:
        return False
    numbers = [*sizes[:at], 0 if same else -1, *sizes[at + 1 :]]
    set_constant(graph, node, 1, f"{node.name}.shape", np.array(numbers, np.int64))
    return True


def _sizes(node: ir.Node, known: dict[ir.Value, list[Size]]) -> list[Size] | None:
    """Return the values of a node's first output as far as they are known; None where none is."""
    if node.op_type == "Shape":
        sizes = dimensions(node.inputs[0])
        if sizes is None:
            return None
        end = node.attributes.get_int("end", len(sizes))
        return sizes[node.attributes.get_int("start", 0) : end]
    rule = _RULES.get(node.op_type)
    if rule is None or not any(value in known for value in node.inputs if value is not None):
        return None
    operands = [_values(value, known) for value in node.inputs]
    return None if any(operand is None for operand in operands) else rule(node, [operand or [] for operand in operands])


def _values(value: ir.Value | None, known: dict[ir.Value, list[Size]]) -> list[Size] | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    array = constant_of(value)
    if array is None or array.size > LARGEST_RANK or array.dtype.kind not in "iu" or array.ndim > 1:
        return None
    return [int(size) for size in array.ravel()]


def _gather(node: ir.Node, operands: list[list[Size]]) -> list[Size] | None:
    if node.attributes.get_int("axis", 0) != 0:
        return None
    data, indices = operands
    if not all(isinstance(index, int) and -len(data) <= index < len(data) for index in indices):
        return None
    return [data[index] for index in indices if isinstance(index, int)]


def _slice(node: ir.Node, operands: list[list[Size]]) -> list[Size] | None:
    data, *bounds = operands
    if len(bounds) < 2 or any(len(bound) != 1 for bound in bounds):
        return None
    start, end, *rest = (bound[0] for bound in bounds)
    plain = all(given == wanted for given, wanted in zip(rest, (0, 1), strict=False))  # the only axis, every element
    return data[start:end] if plain and isinstance(start, int) and isinstance(end, int) else None


def _first(node: ir.Node, operands: list[list[Size]]) -> list[Size] | None:
    return operands[0]


def _cast(node: ir.Node, operands: list[list[Size]]) -> list[Size] | None:
    return operands[0] if node.attributes.get_int("to", 0) in {kind.value for kind in INTEGERS} else None


def _arithmetic(compute: Callable[[int, int], int]) -> Callable[[ir.Node, list[list[Size]]], list[Size] | None]:
    def rule(node: ir.Node, operands: list[list[Size]]) -> list[Size] | None:
        left, right = operands
        if len(left) != len(right) and 1 not in (len(left), len(right)):
            return None
        length = max(len(left), len(right))
        pairs = zip(left * (length if len(left) == 1 else 1), right * (length if len(right) == 1 else 1), strict=True)
        return [compute(a, b) if isinstance(a, int) and isinstance(b, int) else None for a, b in pairs]

    return rule


_RULES: dict[str, Callable[[ir.Node, list[list[Size]]], list[Size] | None]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": lambda _, operands: [size for operand in operands for size in operand],
    "Unsqueeze": _first,
    "Squeeze": _first,
    "Identity": _first,
    "Cast": _cast,
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
    "Div": _arithmetic(lambda a, b: int(a / b) if b else 0),
}


def _inline_branches(graph: ir.Graph) -> None:
    """Replace each If with a constant condition by the branch that is taken."""
    for node in list(graph):
        condition = constant_of(node.inputs[0]) if node.op_type == "If" and node.inputs else None
        if condition is None or condition.size != 1 or node.domain != "":
            continue
        branch = node.attributes["then_branch" if bool(condition.ravel()[0]) else "else_branch"].as_graph()
        _inline(graph, node, branch)


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    results = list(branch.outputs)
    for name, value in list(branch.initializers.items()):
        branch.initializers.pop(name)
        value.name = f"{node.name}/{name}"
        graph.register_initializer(value)
    members = list(branch)
    branch.remove(members)
    for member in members:
        member.name = f"{node.name}/{member.name or member.op_type}"
        for value in member.outputs:
            value.name = f"{node.name}/{value.name}"
    branch.outputs.clear()
    graph.insert_before(node, members)
    for old, new in zip(node.outputs, results, strict=True):
        new.shape = None  # the If's shape was merged from both branches; the next inference finds the right one
        take_over(graph, old, new)
    graph.remove(node, safe=True)


def infer_shapes(model: ir.Model) -> None:
    """Infer the shapes of a model's tensors, in place; a shape that cannot be inferred stays as it was."""
    image = image_value_of(model.graph)
    infer = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    if image.shape is None or not len(image.shape) or isinstance(image.shape[0], int):
        infer(model)
        return
    given = image.shape
    batch = given[0].value if isinstance(given[0], ir.SymbolicDim) and given[0].value else "batch"
    image.shape = ir.Shape([PRIME, *list(given)[1:]])
    try:
        infer(model)
    finally:
        image.shape = given
        for graph in model.graphs():
            for value in (*graph.outputs, *(value for node in graph for value in node.outputs)):
                if value.shape is not None and any(map(_has_batch, value.shape)):
                    value.shape = ir.Shape([_named(side, batch) for side in value.shape])


def _has_batch(side: int | ir.SymbolicDim) -> bool:
    return isinstance(side, int) and side != 0 and side % PRIME == 0


def _named(side: int | ir.SymbolicDim, batch: str) -> int | ir.SymbolicDim:
    if not isinstance(side, int) or not _has_batch(side):
        return side
    return ir.SymbolicDim(batch if side == PRIME else f"{side // PRIME}*{batch}")
