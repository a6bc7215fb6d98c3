"""Marks of a canonical graph's input and output in its metadata, which rewrites keep."""

from pathlib import Path

import onnx_ir as ir

__all__ = ["LOGITS", "channels_last", "label_of", "logits_value", "mark"]

LOGITS = "emca_deploy.logits"
LAYOUT = "emca_deploy.layout"
PATH = "emca_deploy.path"
"""Key of the file's path, which is kept in memory only."""


def mark(graph: ir.Graph, path: Path, logits: str, layout: str) -> None:
    """Record the file, the name of the logits and the layout of the image input, "NCHW" or "NHWC"."""
    graph.meta[PATH] = str(path)
    graph.metadata_props[LOGITS] = logits
    graph.metadata_props[LAYOUT] = layout


def label_of(graph: ir.Graph) -> str:
    """Return a graph's name in error messages: the path of its file, or else its own name."""
    return str(graph.meta.get(PATH, graph.name))


def logits_value(graph: ir.Graph) -> ir.Value:
    """Return the logits, before a final Softmax; the first output of a graph without marks."""
    name = graph.metadata_props.get(LOGITS)
    for value in graph.outputs:
        if name is None or value.name == name:
            return value
    for node in reversed(graph):
        for value in node.outputs:
            if value.name == name:
                return value
    return graph.outputs[0]


def channels_last(graph: ir.Graph) -> bool:
    """Return whether the image input is (N, H, W, C)."""
    return graph.metadata_props.get(LAYOUT) == "NHWC"
