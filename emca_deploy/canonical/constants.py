"""Folding constants: weights that a graph transposes, casts or scales before it uses them."""

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.canonical.edit import new_constant

__all__ = ["fold_constants"]

RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"})
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear"})


def fold_constants(model: ir.Model) -> bool:
    """Replace nodes that read only constants by their results; return whether there were any."""
    graph = model.graph
    constant = {value for value in graph.initializers.values() if not value.is_graph_input()}
    folded: list[ir.Node] = []
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        plain = inputs and node.domain == "" and node.op_type not in RANDOM | QUANTIZED
        if plain and all(value in constant for value in inputs) and not _has_subgraph(node):
            folded.append(node)
            constant.update(node.outputs)
    if not folded:
        return False
    members = set(folded)
    results = [value for node in folded for value in node.outputs if not value.is_graph_output()]
    wanted = [value for value in results if any(use.node not in members for use in value.uses())]
    arrays = _run(model, folded, wanted)
    if arrays is None:
        return False
    for value, array in zip(wanted, arrays, strict=True):
        replacement = new_constant(graph, f"{value.name}/constant", array)
        ir.convenience.replace_all_uses_with(value, replacement)
    for node in reversed(folded):
        if not any(value.is_graph_output() or value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    return True


def _has_subgraph(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(isinstance(attribute, ir.Attr) and attribute.type in kinds for attribute in node.attributes.values())


def _run(model: ir.Model, nodes: list[ir.Node], wanted: list[ir.Value]) -> "list[npt.NDArray[Any]] | None":
    """Run nodes on ONNX Runtime for some of their outputs; None where it refuses them, as it will refuse the whole graph."""
    import onnx
    import onnxruntime

    needed = {value.name: value for node in nodes for value in node.inputs if value is not None and value.is_initializer()}
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "constants",
        [],
        [onnx.ValueInfoProto(name=str(value.name)) for value in wanted],
        [ir.to_proto(value.const_value) for value in needed.values() if value.const_value is not None],
    )
    for tensor, name in zip(graph.initializer, needed, strict=True):
        tensor.name = str(name)
    imports = [onnx.helper.make_opsetid("", model.opset_imports.get("", 0))]
    proto = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, {}))
    except Exception:  # onnxruntime raises a dozen unrelated classes
        return None
