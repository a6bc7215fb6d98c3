"""Node and tensor names a person can find again: `stage2.block0.conv1` instead of `node_Conv_515`."""

import re
from collections import Counter

import onnx_ir as ir

__all__ = ["name_graph"]

SCOPES = "pkg.torch.onnx.name_scopes"

# The released PKCAM code numbers its layers; these give them the names our own networks use.
_RENAMES = (
    (re.compile(r"^pre\.0\b"), "stem.conv"),
    (re.compile(r"^pre\b"), "stem"),
    (re.compile(r"^(stage\d)\.(\d+)\b"), r"\1.block\2"),
    (re.compile(r"\.shortcut\.0\b"), ".shortcut.conv"),
    (re.compile(r"^linear\b"), "head"),
)
_RESIDUAL_INDEX = re.compile(r"\.residual\.(\d+)")


def _readable(path: str) -> str:
    for pattern, replacement in _RENAMES:
        path = pattern.sub(replacement, path)
    # residual.0, .3 and .6 are its convolutions, each followed by batch norm and ReLU
    return _RESIDUAL_INDEX.sub(lambda match: f".conv{int(match[1]) // 3 + 1}", path)


def _module_path(node: ir.Node) -> str:
    """Return the dotted path of the innermost torch module a node came from, "" at the top."""
    scopes = node.metadata_props.get(SCOPES, "")
    names = [name for name in re.findall(r"'([^']*)'", scopes)[:-1] if not name.startswith("_native_batch_norm")]
    return names[-1] if names else ""


def _base_name(node: ir.Node) -> str:
    weight = node.inputs[1] if node.op_type in {"Conv", "Gemm"} else None
    if weight is not None and weight.name and weight.name.endswith(".weight"):
        return _readable(weight.name.removesuffix(".weight"))
    path = _module_path(node)
    if not path and node.inputs and node.inputs[0] is not None and (producer := node.inputs[0].producer()):
        path = (producer.name or "").rpartition(".")[0]  # a pooling at the top belongs to the block it pools
    operation = "pool" if node.op_type in {"GlobalAveragePool", "MaxPool"} else node.op_type.lower()
    path = _readable(path)
    return f"{path}.{operation}" if path and not path.endswith(f".{operation}") else path or operation


def name_graph(model: ir.Model) -> None:
    """Name every node after its module, every tensor after its node, every constant after its first reader.

    The graph's inputs and outputs keep their names. Exporter metadata, which repeats source paths of the exporting machine, is
    dropped.
    """
    graph = model.graph
    outputs = set(graph.outputs)
    seen: Counter[str] = Counter()
    for node in graph:
        base = _base_name(node)
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base] - 1}"
        for value in node.outputs:
            if value not in outputs:
                value.name = node.name
            value.metadata_props.clear()
    _name_constants(graph)
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
    graph.metadata_props.clear()
    model.metadata_props.clear()


_ROLES = {"Conv": ("", "weight", "bias"), "Gemm": ("", "weight", "bias"), "Reshape": ("", "shape"), "ReduceSum": ("", "axes")}


def _name_constants(graph: ir.Graph) -> None:
    taken: set[str] = set()
    for node in graph:
        roles = _ROLES.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if value is None or not value.is_initializer() or value.name in taken:
                continue
            role = roles[index] if index < len(roles) and roles[index] else f"constant{index}"
            value.metadata_props.clear()
            value.name = f"{node.name}.{role}"
            taken.add(value.name)
