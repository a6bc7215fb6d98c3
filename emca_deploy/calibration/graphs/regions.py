"""The regions that a detector's heads read while it is calibrated.

A detector fills the rows after its proposals and detections with boxes that do not count, and a small error changes the order of
the rows. Therefore the heads read valid regions only, repeated in place of the others, and a quantized form reads the float
network's regions. In ranges, rounding, corrected biases and errors each valid region has the same weight, up to one repetition.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph_session import GraphSession, feed_of, fixed_batch, in_order, pool_size, prune
from emca_deploy.canonical.edit import int64_constant, new_constant
from emca_deploy.canonical.marks import compared_values, task_of_graph
from emca_deploy.tasks.detector_layers import CROPS, values_before

__all__ = ["Feed", "ImageFeeds", "measured_model", "read_given_regions"]

IR_VERSION = 10

Feed = Mapping[str, npt.NDArray[Any]]
"""Inputs of a session by name: a batch of images, and the regions that a detector's heads read."""


def measured_model(model: ir.Model) -> ir.Model:
    """Return what calibration measures of a float model: a classifier itself, or a copy of a detector up to its last layers.

    These are the outputs of the copy, and its heads read valid regions alone. The rows of an image fall in score, and valid ones
    have a score of 0 or more, so they are the first. Row i becomes row i modulo their number.
    """
    if task_of_graph(model.graph).has_logits:
        return model
    copy = model.clone()
    for value, (crop, scores) in _regions(copy.graph).items():
        _repeat_valid(copy.graph, value, crop, scores)
    compared = compared_values(copy.graph)
    copy.graph.outputs[:] = compared
    prune(copy)
    return copy


def _regions(graph: ir.Graph) -> dict[ir.Value, tuple[ir.Node, ir.Value]]:
    """Return the tensors with the places of regions of selected boxes; for each a crop, and the scores (N, K) of the selection.

    This is the last selection before the crop: all others lead to it.
    """
    place = {node: number for number, node in enumerate(graph)}
    found: dict[ir.Value, tuple[ir.Node, ir.Value]] = {}
    for node in graph:
        value = node.inputs[CROPS[node.op_type]] if node.op_type in CROPS else None
        if value is None or value in found:
            continue
        makers = {before.producer() for before in values_before([value])}
        selections = [maker for maker in makers if maker is not None and maker.op_type == "TopK"]
        if selections:
            found[value] = (node, max(selections, key=place.__getitem__).outputs[0])
    return found


def _repeat_valid(graph: ir.Graph, value: ir.Value, crop: ir.Node, scores: ir.Value) -> None:
    """Let all readers of regions, (N * R, ...) or a grid (N, R * S, S, 2), read the valid ones in turn."""
    images, shape = fixed_batch(graph), value.shape
    if images is None or shape is None or not shape.is_static():
        return
    sides = list(shape.numpy())
    regions = sides[0] // images if crop.op_type == "RoiAlign" else sides[1] // sides[2]
    name, readers = str(value.name), list(value.uses())

    def insert(op_type: str, inputs: list[ir.Value | None], what: str, **attributes: Any) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=f"{name}/{what}")
        node.outputs[0].name = f"{name}/{what}"
        graph.insert_before(crop, node)
        return node.outputs[0]

    def numbers(what: str, array: npt.NDArray[Any]) -> ir.Value:
        return new_constant(graph, f"{name}/{what}", array)

    is_valid = insert("GreaterOrEqual", [scores, numbers("least", np.zeros((), np.float32))], "is_valid")
    ones = insert("Cast", [is_valid], "ones", to=ir.DataType.INT64.value)
    axes, one = int64_constant(graph, f"{name}/axes", [1]), int64_constant(graph, f"{name}/one", [1])
    count = insert("Max", [insert("ReduceSum", [ones, axes], "valid", keepdims=1), one], "count")  # (N, 1)
    turns = insert("Mod", [numbers("turns", np.arange(regions, dtype=np.int64)[None]), count], "turn")  # (N, R)
    first = numbers("first", np.arange(images, dtype=np.int64)[:, None] * regions)
    rows = insert("Reshape", [insert("Add", [turns, first], "row"), int64_constant(graph, f"{name}/flat", [-1])], "rows")
    table = insert("Reshape", [value, int64_constant(graph, f"{name}/table.shape", [images * regions, -1])], "table")
    chosen = insert("Gather", [table, rows], "chosen", axis=0)
    result = insert("Reshape", [chosen, int64_constant(graph, f"{name}/shape", sides)], "repeated")
    result.shape, result.type = shape, value.type
    for use in readers:
        use.node.replace_input_with(use.idx, result)


def read_given_regions(model: ir.Model) -> list[str]:
    """Let a detector's heads read regions that are given as inputs, and remove their selection, in place; return their names."""
    graph = model.graph
    given = []
    for value in _regions(graph):
        entry = ir.Value(name=f"{value.name}/given", shape=value.shape, type=value.type)
        graph.inputs.append(entry)
        ir.convenience.replace_all_uses_with(value, entry)
        given.append(str(entry.name))
    if given:
        prune(model)
    return given


class ImageFeeds:
    """The inputs of a float graph and its variants for images of one source; regions are found once for each batch."""

    def __init__(self, graph: ir.Graph, threads: int) -> None:
        self._graph, self._threads = graph, threads
        self._names = [f"{value.name}/given" for value in _regions(graph)]
        self._known: dict[tuple[int, ...], list[npt.NDArray[Any]]] = {}

    def of(self, indices: Sequence[int], batches: Iterable[Float32Array]) -> list[Feed]:
        """Return the inputs of each batch of images (N, C, H, W), with the regions that the float graph's heads read.

        `indices` are the indices of the images in their source.

        Raises:
            ModelError: ONNX Runtime refuses the graph or the images.
        """
        feeds: list[Feed] = []
        members, rest = list[tuple[int, ...]](), iter(indices)
        for images in batches:
            feeds.append(feed_of(self._graph, images))
            members.append(tuple(islice(rest, len(images))))
        if not self._names:
            return feeds
        new = {key: feed for key, feed in zip(members, feeds, strict=True) if key not in self._known}
        if new:
            session, workers = self._session()
            self._known |= zip(new, in_order(session.run, new.values(), workers), strict=True)
        return [
            {**feed, **dict(zip(self._names, self._known[key], strict=True))} for key, feed in zip(members, feeds, strict=True)
        ]

    def _session(self) -> tuple[GraphSession, int]:
        """Return a session that finds the regions, and the number of images that it runs at a time."""
        model = ir.Model(self._graph.clone(), ir_version=IR_VERSION)
        found = list(_regions(model.graph))
        model.graph.outputs.clear()
        model.graph.outputs.extend(found)
        prune(model)
        workers, threads_each = pool_size(self._threads)
        return GraphSession(model, threads_each), workers
