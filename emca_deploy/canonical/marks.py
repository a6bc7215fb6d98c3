"""Marks of a canonical graph's task, input and output in its metadata, which rewrites keep."""

from pathlib import Path

import onnx_ir as ir

from emca_deploy.requests import TaskName
from emca_deploy.tasks.registry import TASKS
from emca_deploy.tasks.task import Task

__all__ = ["LOGITS", "channels_last", "compared_values", "label_of", "logits_value", "mark", "task_of_graph"]

TASK = "emca_deploy.task"
LOGITS = "emca_deploy.logits"
LAYOUT = "emca_deploy.layout"
PATH = "emca_deploy.path"
"""Key of the file's path, which is kept in memory only."""


def mark(graph: ir.Graph, path: Path, task: TaskName, logits: str | None, layout: str) -> None:
    """Record the file, the task, the name of a classifier's logits and the layout of the image input, "NCHW" or "NHWC"."""
    graph.meta[PATH] = str(path)
    graph.metadata_props[TASK] = task
    if logits is not None:
        graph.metadata_props[LOGITS] = logits
    graph.metadata_props[LAYOUT] = layout


def label_of(graph: ir.Graph) -> str:
    """Return a graph's name in error messages: the path of its file, or else its own name."""
    return str(graph.meta.get(PATH, graph.name))


def task_of_graph(graph: ir.Graph) -> Task:
    """Return a graph's task: classification for one without marks."""
    name = graph.metadata_props.get(TASK)
    return next((task for task in TASKS.values() if task.name == name), TASKS["classification"])


def compared_values(graph: ir.Graph) -> list[ir.Value]:
    """Return the tensors of a float graph by which two forms of it are compared: the logits, or the results of last layers."""
    return task_of_graph(graph).compared(graph, graph.metadata_props.get(LOGITS))


def logits_value(graph: ir.Graph) -> ir.Value:
    """Return a classifier's logits, before a final Softmax; the first output of a graph without marks."""
    return TASKS["classification"].compared(graph, graph.metadata_props.get(LOGITS))[0]


def channels_last(graph: ir.Graph) -> bool:
    """Return whether the image input is (N, H, W, C)."""
    return graph.metadata_props.get(LAYOUT) == "NHWC"
