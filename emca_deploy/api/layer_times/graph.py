"""The nodes of an ONNX model: which belong to an attention, and what each computes and moves."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.artifacts import Manifest
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.multiply_adds import WEIGHT_INPUT, known_shapes, proto_multiply_adds
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.refusal import graph_errors

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["LayerGraph", "Node", "graph_of", "source_of"]

_FURTHEST_BACK = 6


@dataclass(frozen=True)
class Node:
    """A node of the model.

    Attributes:
        op_type: operator of the node.
        attention: whether it belongs to an attention: its pooling, the computation of its scales, or the multiplication by them.
        macs: multiply-adds of one call; 0 if it has none or a shape is unknown.
        input_elements: elements of the first input.
        weight_elements: elements of the weights.
        output_elements: elements of the first output.
        before: key of the node that makes the first input.
    """

    op_type: str
    attention: bool = False
    macs: int = 0
    input_elements: int = 0
    weight_elements: int = 0
    output_elements: int = 0
    before: str = ""


@dataclass(frozen=True)
class LayerGraph:
    """A model's nodes, by their names and the names of their outputs."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def of(self, names: Iterable[str], *, convolution: bool) -> tuple[tuple[str, Node], ...]:
        """Return the nodes of a runtime's layer, as far as its names are those of the model.

        Args:
            names: names that the runtime reports.
            convolution: whether the layer is a convolution; some runtimes name it by a node fused behind it, from which the
                convolution is found going back.
        """
        found = {name: self.nodes[name] for name in names if name in self.nodes}
        if convolution and found and all(node.op_type not in WEIGHT_INPUT for node in found.values()):
            name = next(iter(found))
            for _ in range(_FURTHEST_BACK):
                name = self.nodes[name].before
                if name not in self.nodes:
                    break
                found[name] = self.nodes[name]
                if found[name].op_type in WEIGHT_INPUT:
                    return tuple(reversed(found.items()))
        return tuple(found.items())


def source_of(artifact: Path, manifest: Manifest | None) -> Path | None:
    """Return the .onnx file that an artifact is or was built from, or None if it was moved or changed."""
    if manifest is None or manifest.kind != "engine":
        return artifact
    source = Path(str(manifest.details.get("source", "")))
    if not source.is_file() or OnnxFile.open(source).sha256 != manifest.inputs.get("model"):
        return None
    return source


def graph_of(path: Path, batch: int) -> LayerGraph:
    """Read a model, with `batch` for a dynamic batch.

    Raises:
        ModelError: the model cannot be read.
    """
    import onnx
    import onnx_ir as ir

    model = OnnxFile.open(path).load_proto()
    with graph_errors(path):
        inferred = onnx.shape_inference.infer_shapes(_fixed(model, batch))
        in_attention = _attention(ir.from_proto(inferred).graph)
    shapes = known_shapes(inferred.graph)
    nodes: dict[str, Node] = {}
    maker = {name: node.name or name for node in inferred.graph.node for name in node.output}
    for node in inferred.graph.node:
        described = _node(node, shapes, maker, attention=any(name in in_attention for name in node.output))
        for name in (node.name, *node.output):
            if name:
                nodes.setdefault(name, described)
    return LayerGraph(nodes)


def _attention(graph: "ir.Graph") -> set[str]:
    """Return the outputs of every node of an attention; changes this copy of the graph.

    A global pooling that a recipe has split into rows and columns counts as one.
    """
    split = {}
    for node in graph:
        behind = _split_behind(node)
        if behind is not None:
            node.op_type = "GlobalAveragePool"
            split[node] = behind
    attention = find_attention(graph)
    members = {*attention.gates, *attention.nodes, *attention.pools}
    members |= {behind for node, behind in split.items() if node in attention.pools}
    return {str(value.name) for node in members for value in node.outputs}


def _split_behind(node: "ir.Node") -> "ir.Node | None":
    """Return the AveragePool before an AveragePool that leaves one pixel, or None."""
    shape = node.outputs[0].shape
    if node.op_type != "AveragePool" or shape is None or list(shape)[2:] != [1, 1] or node.inputs[0] is None:
        return None
    before = node.inputs[0].producer()
    return before if before is not None and before.op_type == "AveragePool" else None


def _fixed(model: "onnx.ModelProto", batch: int) -> "onnx.ModelProto":
    """Fix the batch of the input, and remove the shapes that the exporter wrote, to infer them again."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value < 1:
            dims[0].dim_value = batch
    del model.graph.value_info[:]
    return model


def _node(node: "onnx.NodeProto", shapes: dict[str, list[int]], maker: dict[str, str], *, attention: bool) -> Node:
    index = WEIGHT_INPUT.get(node.op_type, len(node.input))
    input_, weight = (shapes.get(name) for name in (*node.input[:1], *node.input[index : index + 1], "", "")[:2])
    output = shapes.get(node.output[0])
    before = maker.get(node.input[0], "") if node.input else ""
    return Node(
        op_type=node.op_type,
        attention=attention,
        macs=proto_multiply_adds(node, shapes),
        input_elements=prod(input_) if input_ else 0,
        weight_elements=prod(weight) if weight and output else 0,
        output_elements=prod(output) if output else 0,
        before=before,
    )
