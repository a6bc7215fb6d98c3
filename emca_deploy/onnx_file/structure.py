"""Checks that a graph is well formed: each tensor made once, no circles, weights of the stated size, names of sane length."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.header import REMEDY
from emca_deploy.onnx_file.sidecars import all_tensors

if TYPE_CHECKING:
    import onnx

__all__ = ["check_structure"]

_T = TypeVar("_T")

LONGEST_NAME = 1024
MOST_DIMENSIONS = 64
LARGEST_SIZE = 2**31 - 1
SHOWN = 80
SURROGATE = re.compile("[\ud800-\udfff]")


def check_structure(path: Path, model: "onnx.ModelProto") -> None:
    """Refuse a graph that is not well formed, on which libraries fail in many ways or never end.

    The time is linear in the size of the graph; external data is not read.

    Raises:
        ModelError: the graph is not well formed.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    _check_graph(path, model.graph, frozenset(), opset)
    _check_inputs(path, model.graph)
    for tensor in all_tensors(model.graph):
        _check_tensor(path, tensor)
    _check_functions(path, model)


def _refuse(path: Path, wrong: str) -> ModelError:
    return ModelError(f"{path}: its graph is damaged: {wrong}", REMEDY)


def _short(name: str) -> str:
    return f"'{name[:SHOWN]}{'...' if len(name) > SHOWN else ''}'"


def _check_graph(path: Path, graph: "onnx.GraphProto", outside: frozenset[str], opset: int) -> None:
    """Check one graph; `outside` has the tensors of surrounding graphs, which a subgraph may read."""
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    for index, node in enumerate(graph.node):
        _check_node(path, index, node, opset)
    makers = _makers(path, graph, given)
    known = outside | given
    reads = [[name for name in node.input if name and name not in known] for node in graph.node]
    for node, names in zip(graph.node, reads, strict=True):
        lost = next((name for name in names if name not in makers), None)
        if lost is not None:
            raise _refuse(path, f"node {_short(node.name or node.op_type)} reads {_short(lost)}, which nothing makes")
    lost = next((value.name for value in graph.output if value.name not in makers and value.name not in known), None)
    if lost is not None:
        raise _refuse(path, f"nothing makes its output {_short(lost)}")
    circle = _circle({index: {makers[name] for name in names} for index, names in enumerate(reads)})
    if circle is not None:
        raise _refuse(path, f"node {_short(graph.node[circle].name or graph.node[circle].op_type)} is part of a circle")
    for inner in _subgraphs(graph.node):
        _check_graph(path, inner, known | makers.keys(), opset)


def _check_node(path: Path, index: int, node: "onnx.NodeProto", opset: int) -> None:
    for name in (node.name, node.op_type, node.domain, *node.input, *node.output):
        _check_name(path, f"node {index}", name)
    inputs, outputs = _fewest(node.domain, node.op_type, opset)
    if len(node.input) < inputs or len(node.output) < outputs:
        raise _refuse(path, f"node {_short(node.name or str(index))}, a {_short(node.op_type)}, lacks inputs or outputs")


def _check_name(path: Path, what: str, name: object) -> None:
    """Refuse a name that is too long or not text: protobuf returns bytes for what is not UTF-8."""
    if not isinstance(name, str) or (not name.isascii() and SURROGATE.search(name)):
        raise _refuse(path, f"{what} has a name that is not text")
    if len(name) > LONGEST_NAME:
        raise _refuse(path, f"{what} has a name of {len(name)} characters: {_short(name)}")


def _makers(path: Path, graph: "onnx.GraphProto", given: set[str]) -> dict[str, int]:
    """Return the number of the node that makes each tensor."""
    makers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in makers or name in given:
                raise _refuse(path, f"the tensor {_short(name)} is made twice")
            makers[name] = index
    return makers


def _subgraphs(nodes: "Iterable[onnx.NodeProto]") -> "Iterable[onnx.GraphProto]":
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


@lru_cache(maxsize=1024)
def _fewest(domain: str, operator: str, opset: int) -> tuple[int, int]:
    """Return the smallest numbers of inputs and outputs of an operator in an opset; (0, 0) for one that is not ONNX's own."""
    import onnx

    if domain not in ("", "ai.onnx") or not onnx.defs.has(operator):
        return 0, 0
    try:
        schema = onnx.defs.get_schema(operator, max_inclusive_version=max(1, min(opset, onnx.defs.onnx_opset_version())))
    except onnx.defs.SchemaError:  # the opset has no such operator yet: a runtime refuses it
        return 0, 0
    return schema.min_input, schema.min_output


def _circle(reads: Mapping[_T, Iterable[_T]]) -> _T | None:
    """Return one part of a circle among things that read each other, or None."""
    try:
        TopologicalSorter(reads).prepare()
    except CycleError as exc:
        found: _T = exc.args[1][0]
        return found
    return None


def _check_inputs(path: Path, graph: "onnx.GraphProto") -> None:
    """Refuse an input that is too large for any memory, which a runtime would try to allocate."""
    import onnx

    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_name(path, "an input or output", value.name)
        kind = value.type.tensor_type.elem_type
        if kind not in onnx.TensorProto.DataType.values():
            raise _refuse(path, f"{_short(value.name)} is of an unknown type, number {kind}")
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
        if len(sizes) > MOST_DIMENSIONS or prod(max(size, 1) for size in sizes) > LARGEST_SIZE:
            raise _refuse(path, f"{_short(value.name)} has the shape {sizes[:8]}")


def _check_tensor(path: Path, tensor: "onnx.TensorProto") -> None:
    import onnx

    _check_name(path, "a tensor", tensor.name)
    name = _short(tensor.name)
    if any(len(entry.value) > LONGEST_NAME for entry in tensor.external_data):
        raise _refuse(path, f"the place of tensor {name} has more than {LONGEST_NAME} characters")
    dims = list(tensor.dims)
    if len(dims) > MOST_DIMENSIONS or not all(0 <= size <= LARGEST_SIZE for size in dims):
        raise _refuse(path, f"tensor {name} has the shape {dims[:8]}")
    if tensor.data_type not in onnx.TensorProto.DataType.values() or tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise _refuse(path, f"tensor {name} is of an unknown type, number {tensor.data_type}")
    if tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.HasField("raw_data"):
        wanted = -(-prod(dims) * _bits(tensor.data_type) // 8)
        if tensor.data_type != onnx.TensorProto.STRING and len(tensor.raw_data) != wanted:
            raise _refuse(path, f"tensor {name} of shape {dims} needs {wanted} bytes and has {len(tensor.raw_data)}")


def _bits(data_type: int) -> int:
    """Return the bits of an element."""
    import onnx

    kind = onnx.TensorProto.DataType.Name(data_type)
    if kind.endswith("INT4") or kind == "FLOAT4E2M1":
        return 4
    if kind.endswith("INT2"):
        return 2
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8


def _check_functions(path: Path, model: "onnx.ModelProto") -> None:
    """Refuse functions that call themselves, directly or through others."""
    calls = {
        (function.domain, function.name): {(node.domain, node.op_type) for node in _all_nodes(function.node)}
        for function in model.functions
    }
    for names in calls:
        if max(map(len, names)) > LONGEST_NAME:
            raise _refuse(path, f"a function has a name of {max(map(len, names))} characters")
    circle = _circle({name: called & calls.keys() for name, called in calls.items()})
    if circle is not None:
        raise _refuse(path, f"function {_short(circle[1])} calls itself")


def _all_nodes(nodes: "Iterable[onnx.NodeProto]") -> "Iterable[onnx.NodeProto]":
    for node in nodes:
        yield node
        for graph in _subgraphs([node]):
            yield from _all_nodes(graph.node)
