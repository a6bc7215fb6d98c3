"""Readable names for the nodes and tensors of an export: `stage2.block0.conv1`, after the modules of the network."""

import re
from collections import Counter

import onnx_ir as ir

__all__ = ["LAYER", "MODULE", "name_graph"]

MODULE = "module"
"""Key of a node's metadata: dotted path of the module whose forward pass made it, empty for the network itself."""

LAYER = "layer"
"""Key of a node's metadata: dotted path of the module whose weights the node has, in any order."""

# The released PKCAM code numbers its layers; these patterns give them the names of our own networks.
_RENAMES = (
    (re.compile(r"^pre\.0\b"), "stem.conv"),
    (re.compile(r"^pre\b"), "stem"),
    (re.compile(r"^(stage\d)\.(\d+)\b"), r"\1.block\2"),
    (re.compile(r"\.shortcut\.0\b"), ".shortcut.conv"),
    (re.compile(r"^linear\b"), "head"),
)
BACKBONE = "backbone."
"""Beginning of the paths of a detector's classifier without its last layer."""

_RESIDUAL_INDEX = re.compile(r"\.residual\.(\d+)")


def _readable(path: str) -> str:
    if path.startswith(BACKBONE):
        return f"{BACKBONE}{_readable(path.removeprefix(BACKBONE))}"
    for pattern, replacement in _RENAMES:
        path = pattern.sub(replacement, path)
    # residual.0, .3 and .6 are convolutions, each followed by batch norm and ReLU
    return _RESIDUAL_INDEX.sub(lambda match: f".conv{int(match[1]) // 3 + 1}", path)


def _base_name(node: ir.Node) -> str:
    if layer := node.metadata_props.get(LAYER):
        return _readable(layer)
    path = node.metadata_props.get(MODULE, "")
    if path in {"", "backbone"} and node.inputs and node.inputs[0] is not None and (producer := node.inputs[0].producer()):
        path = (producer.name or "").rpartition(".")[0]  # a pooling at the top belongs to the block whose output it pools
    operation = "pool" if node.op_type in {"GlobalAveragePool", "MaxPool"} else node.op_type.lower()
    path = _readable(path)
    return f"{path}.{operation}" if path and not path.endswith(f".{operation}") else path or operation


def name_graph(model: ir.Model) -> None:
    """Name every node after its module, every tensor after its node, and every constant after its first reader.

    The graph's inputs and outputs keep their names. Metadata is removed.
    """
    graph = model.graph
    outputs = set(graph.outputs)
    seen: Counter[str] = Counter()
    for node in graph:
        base = _base_name(node)
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base] - 1}"
        for index, value in enumerate(node.outputs):
            if value not in outputs:
                value.name = f"{node.name}.{index}" if index else node.name
            value.metadata_props.clear()
    taken: set[str] = set()
    for node in graph:
        _name_constants(node, taken)
        node.metadata_props.clear()
        node.doc_string = None
    graph.metadata_props.clear()
    model.metadata_props.clear()


_ROLES = {"Conv": ("", "weight", "bias"), "Gemm": ("", "weight", "bias"), "Reshape": ("", "shape"), "ReduceSum": ("", "axes")}


def _name_constants(node: ir.Node, taken: set[str]) -> None:
    roles = _ROLES.get(node.op_type, ())
    for index, value in enumerate(node.inputs):
        if value is None or not value.is_initializer() or value.name in taken:
            continue
        role = roles[index] if index < len(roles) and roles[index] else f"constant{index}"
        value.metadata_props.clear()
        value.name = f"{node.name}.{role}"
        taken.add(value.name)
