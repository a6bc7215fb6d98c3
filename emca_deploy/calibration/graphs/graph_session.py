"""Running a graph for its inner tensors on ONNX Runtime, for calibration and recovery."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._machine import cpu_info
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph import all_values
from emca_deploy.canonical.batch import image_value_of
from emca_deploy.canonical.marks import channels_last, label_of
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.refusal import library_reason, refusal
from emca_deploy.tasks.inputs import native_images

__all__ = [
    "LARGEST_POOL",
    "GraphRunner",
    "GraphSession",
    "append_output",
    "batch_size",
    "branches_of",
    "feed_of",
    "few_of",
    "find_values",
    "fixed_batch",
    "image_means",
    "in_order",
    "leave",
    "leave_mean",
    "pool_size",
    "prune",
    "regions_of",
]  # fmt: skip

LARGEST_POOL = 4
"""Most workers that run images in parallel; each holds the tensors of its images."""

PIXELS_AT_ONCE, MOST_AT_ONCE = 2 * 224 * 224, 16
"""Pixels of the images of one run, and most images of it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def few_of(indices: Sequence[int], count: int) -> list[int]:
    """Return `count` of the indices, evenly spread; all where there are fewer."""
    few = min(count, len(indices))
    return [indices[position * len(indices) // few] for position in range(few)]


def find_values(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    """Return a graph's inputs and results of these names."""
    by_name = {str(value.name): value for value in all_values(graph)}
    return [by_name[name] for name in names]


def append_output(graph: ir.Graph, node: ir.Node, name: str) -> ir.Value:
    """Append a node to a graph, name its float result and return it."""
    result = node.outputs[0]
    result.name, result.type = name, ir.TensorType(ir.DataType.FLOAT)
    graph.append(node)
    return result


def leave(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return a tensor that can be an output: the given one, or a copy of an input, which not every opset allows as an output."""
    if not value.is_graph_input():
        return value
    copy = append_output(graph, ir.node("Identity", [value]), f"{value.name}/seen")
    copy.dtype = value.dtype or ir.DataType.FLOAT
    return copy


def leave_mean(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Append the mean over each image's pixels, (N, C), and return it; an (N, C) tensor is its own mean."""
    rank = len(value.shape) if value.shape is not None else 4
    if rank == 2:
        return leave(graph, value)
    pooled = append_output(graph, ir.node("GlobalAveragePool", [value]), f"{value.name}/pooled")
    return append_output(graph, ir.node("Flatten", [pooled]), f"{value.name}/mean")


def regions_of(output: npt.NDArray[Any], images: int) -> int:
    """Return how many regions of each image are the rows of an output, (N * R, ...) or (N, ...)."""
    return max(1, len(output) // images) if output.ndim else 1


def image_means(means: Float32Array, images: int) -> Float32Array:
    """Return the means (N, C) over each image's regions of channel means (N * R, C)."""
    return means if len(means) == images else means.reshape(images, -1, means.shape[1]).mean(axis=1)


def prune(model: ir.Model) -> None:
    """Remove the nodes and inputs that a graph's outputs do not need; ONNX Runtime would run them."""
    branching = [node for node in model.graph if branches_of(node)]
    common.RemoveUnusedNodesPass()(model)
    gone = [node for node in branching if node.graph is None]
    for node in gone:  # its branches would still count as readers
        for inner in (inner for branch in branches_of(node) for inner in branch):
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
    if gone:
        common.RemoveUnusedNodesPass()(model)
    unused = [value for value in model.graph.inputs if not value.uses()]
    for value in unused:
        model.graph.inputs.remove(value)


def branches_of(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs in a node's attributes, such as the branches of an If."""
    return [attribute.as_graph() for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH]


def feed_of(graph: ir.Graph, images: Float32Array) -> dict[str, npt.NDArray[Any]]:
    """Return the input of a graph's session: images (N, C, H, W) float32 in the graph's layout, type and batch size.

    A fixed batch is filled by repetition.

    Raises:
        ValueError: there are more images than a fixed batch takes.
    """
    entry, size, count = image_value_of(graph), fixed_batch(graph) or len(images), len(images)
    if count > size:
        raise ValueError(f"{count} images for a batch of {size}")
    dtype = {ir.DataType.UINT8: "uint8", ir.DataType.FLOAT16: "float16"}.get(entry.dtype or ir.DataType.FLOAT, "float32")
    filled = images if count == size else images[[i % count for i in range(size)]]
    return {str(entry.name): native_images(filled, dtype, channels_last=channels_last(graph))}


def fixed_batch(graph: ir.Graph) -> int | None:
    """Return a graph's fixed batch size; None for a dynamic one."""
    shape = image_value_of(graph).shape
    return shape[0] if shape is not None and len(shape) and isinstance(shape[0], int) else None


def batch_size(graph: ir.Graph, threads: int) -> int:
    """Return the images of one run: the graph's fixed number, or few enough for their tensors to stay in the caches.

    On 2 threads a quantized ResNet-50 at 224x224 with Q/DQ pairs in float is 1.25 times as fast with 2 images as with 8. Of small
    images many are run at once: at 48x48 most of the time of 2 images is reading a ResNet-18's weights.
    """
    shape = image_value_of(graph).shape or ()
    sides = sorted(side for side in shape[1:] if isinstance(side, int))[-2:]  # not the channels
    many = PIXELS_AT_ONCE // prod(sides) if len(sides) == 2 else 0
    return fixed_batch(graph) or max(min(8, max(2, threads)), min(MOST_AT_ONCE, many))


class GraphSession:
    """An ONNX Runtime session of a graph, whose label errors name."""

    def __init__(self, model: ir.Model, threads: int, *, exact: bool | None = None) -> None:
        """Open the session.

        `exact` computes Q/DQ pairs in float, as ONNX defines them, instead of fusing them into integer kernels; None does so only
        where the processor's integer kernels saturate.

        Raises:
            ModelError: the runtime refuses the graph.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if exact or (exact is None and cpu_info().saturates_int8):
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._label, content = label_of(model.graph), ir.to_proto(model).SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime raises a dozen unrelated classes
            raise refusal(self._label, "ONNX Runtime", exc) from exc
        self.inputs = [entry.name for entry in self._session.get_inputs()]

    def run(self, feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        """Return the outputs for some inputs.

        Raises:
            ModelError: the graph cannot run these inputs.
        """
        try:
            return list(self._session.run(None, dict(feed)))
        except Exception as exc:
            shape, wanted = next(iter(feed.values())).shape, self._session.get_inputs()[0].shape
            fits = len(wanted) == len(shape) and all(not isinstance(a, int) or a == b for a, b in zip(wanted, shape, strict=True))
            raise ModelError(
                f"{self._label}: ONNX Runtime cannot run it on a batch {tuple(shape)}: {library_reason(exc)}",
                "check the model with onnx.checker and `emca-deploy profile`" if fits else "give data of the model's input size",
            ) from exc


class GraphRunner:
    """A graph that returns some of its tensors, or the mean of each of their channels.

    The rows of a detector's regions belong to their image.

    A graph of fixed batch runs in pieces; the last is filled by repetition and cut again.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int, *, means: bool = False) -> None:
        """Make the named inputs or results the outputs of the model's graph, which is changed.

        `means` returns (N, C) means over the pixels of each image instead of the tensors.

        Raises:
            ModelError: ONNX Runtime refuses the graph.
        """
        graph = model.graph
        graph.outputs.clear()
        for value in find_values(graph, names):
            graph.outputs.append(leave_mean(graph, value) if means else leave(graph, value))
        prune(model)
        self._names, self._graph, self._fixed = list(names), graph, fixed_batch(graph)
        self._session, self._means = GraphSession(model, threads), means

    def __call__(self, images: Float32Array) -> dict[str, Float32Array]:
        """Run (N, 3, H, W) float32 images and return each tensor, (N, ...) or with R regions (N * R, ...) float32, by name."""
        size = self._fixed or len(images)
        pieces = [self._run(images[start : start + size]) for start in range(0, len(images), size)]
        return {name: np.concatenate(parts) for name, parts in zip(self._names, zip(*pieces, strict=True), strict=True)}

    def _run(self, images: Float32Array) -> list[Float32Array]:
        feed = feed_of(self._graph, images)
        size = len(next(iter(feed.values())))
        found = [output[: len(images) * regions_of(output, size)] for output in self._session.run(feed)]
        return [image_means(output, len(images)) for output in found] if self._means else found


def pool_size(threads: int) -> tuple[int, int]:
    """Return the number of workers, and the threads of each worker's runtime."""
    workers = min(threads, LARGEST_POOL)
    return workers, max(1, threads // workers)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield the results of work on items, done by threads, in the items' order; few items wait at a time.

    Raises:
        Exception: the exception of an item's work, in its turn.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="calibrate")
    try:
        for item in items:
            if len(pending) > workers:
                yield pending.popleft().result()
            pending.append(pool.submit(work, item))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
