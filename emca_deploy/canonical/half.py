"""A float16 network as float32, its input and outputs left as they are: INT8 is made from float32."""

import numpy as np
import onnx_ir as ir

__all__ = ["widen"]

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def widen(model: ir.Model) -> bool:
    """Make every float16 constant and tensor of a graph float32; return whether there was one.

    A float16 input gets a Cast behind it and a float16 output one in front of it, so that the file's interface stays.
    """
    graph = model.graph
    halves = [value for value in graph.initializers.values() if value.dtype == HALF]
    if not halves:
        return False
    for value in halves:
        assert value.const_value is not None
        array = value.const_value.numpy().astype(np.float32)
        value.const_value = ir.Tensor(array, name=value.name)
        value.dtype = FLOAT
    for node in graph:
        _widen_attributes(node)
        for value in node.outputs:
            if value.dtype in (HALF, FLOAT) and not value.is_graph_output():
                value.dtype = FLOAT
    for value in list(graph.inputs):
        if value.dtype == HALF:
            _cast_input(graph, value)
    for index, value in enumerate(list(graph.outputs)):
        if value.dtype == HALF:
            _cast_output(graph, index, value)
    return True


def _widen_attributes(node: ir.Node) -> None:
    if node.op_type == "Cast" and node.attributes.get_int("to", 0) == HALF.value:
        node.attributes.add(ir.AttrInt64("to", FLOAT.value))
    for attribute in list(node.attributes.values()):
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype == HALF:
                node.attributes.add(ir.AttrTensor(attribute.name, ir.Tensor(tensor.numpy().astype(np.float32))))


def _cast_input(graph: ir.Graph, value: ir.Value) -> None:
    readers = list(value.uses())
    cast = ir.node("Cast", [value], {"to": FLOAT.value}, name=f"{value.name}/to_float32")
    result = cast.outputs[0]
    result.name, result.shape, result.dtype = f"{value.name}/float32", value.shape, FLOAT
    first = next(iter(graph))
    graph.insert_before(first, cast)
    for use in readers:
        use.node.replace_input_with(use.idx, result)


def _cast_output(graph: ir.Graph, index: int, value: ir.Value) -> None:
    name = value.name
    value.name, value.dtype = f"{name}/float32", FLOAT
    cast = ir.node("Cast", [value], {"to": HALF.value}, name=f"{name}/to_float16")
    result = cast.outputs[0]
    result.name, result.shape, result.dtype = name, value.shape, HALF
    graph.append(cast)
    graph.outputs[index] = result
