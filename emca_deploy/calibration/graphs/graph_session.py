"""Running a graph for its inner tensors, on ONNX Runtime: what calibration and recovery measure with."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._machine import cpu_info
from emca_deploy.arrays import Float32Array
from emca_deploy.canonical.batch import image_value_of
from emca_deploy.canonical.marks import channels_last, label_of
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.image import native_images
from emca_deploy.onnx_file.refusal import library_reason, refusal

__all__ = [
    "LARGEST_POOL",
    "GraphRunner",
    "append_output",
    "batch_size",
    "feed_of",
    "few_of",
    "filled",
    "find_values",
    "fixed_batch",
    "in_order",
    "leave",
    "leave_mean",
    "open_graph",
    "pool_size",
    "prune",
    "run_session",
]


LARGEST_POOL = 4
"""Workers that run images side by side; each holds the tensors of its images."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def few_of(indices: Sequence[int], count: int) -> list[int]:
    """Return `count` of some indices, evenly spread over them; all where there are fewer."""
    return list(indices)[:: max(1, len(indices) // count)][:count]


def open_graph(model: ir.Model, label: str, threads: int, *, exact: bool | None = None) -> Any:
    """Return an ONNX Runtime session of a graph; `label` is what an error calls it, a path for example.

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
    try:
        return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime raises a dozen unrelated classes
        raise refusal(label, "ONNX Runtime", exc) from exc


def find_values(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    """Return a graph's inputs and activations of these names."""
    by_name = {str(value.name): value for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]}
    return [by_name[name] for name in names]


def append_output(graph: ir.Graph, node: ir.Node, name: str) -> ir.Value:
    """Append a node to a graph, name its float result and return it."""
    result = node.outputs[0]
    result.name, result.type = name, ir.TensorType(ir.DataType.FLOAT)
    graph.append(node)
    return result


def leave(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return what can be an output in place of a tensor: itself, or a copy of an input, which cannot be one everywhere."""
    if not value.is_graph_input():
        return value
    copy = append_output(graph, ir.node("Identity", [value]), f"{value.name}/seen")
    copy.dtype = value.dtype or ir.DataType.FLOAT
    return copy


def leave_mean(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Append the mean over each image's pixels, (N, C); (N, C) tensors have but one."""
    rank = len(value.shape) if value.shape is not None else 4
    if rank == 2:
        return leave(graph, value)
    pooled = append_output(graph, ir.node("GlobalAveragePool", [value]), f"{value.name}/pooled")
    return append_output(graph, ir.node("Flatten", [pooled]), f"{value.name}/mean")


def prune(model: ir.Model) -> None:
    """Remove the nodes and inputs that a graph's outputs do not need: ONNX Runtime would run them all the same."""
    branching = [node for node in model.graph if _branches(node)]
    common.RemoveUnusedNodesPass()(model)
    gone = [node for node in branching if node.graph is None]
    for node in gone:  # what its branches read would still count as read
        for inner in (inner for branch in _branches(node) for inner in branch):
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
    if gone:
        common.RemoveUnusedNodesPass()(model)
    unused = [value for value in model.graph.inputs if not value.uses()]
    for value in unused:
        model.graph.inputs.remove(value)


def _branches(node: ir.Node) -> list[ir.Graph]:
    return [attribute.as_graph() for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH]


def feed_of(graph: ir.Graph, images: Float32Array) -> dict[str, npt.NDArray[Any]]:
    """Return what a session of a graph is fed: images (N, C, H, W) float32 in the graph's own layout, type and batch size.

    A fixed batch is filled by repetition.
    """
    entry = image_value_of(graph)
    dtype = {ir.DataType.UINT8: "uint8", ir.DataType.FLOAT16: "float16"}.get(entry.dtype or ir.DataType.FLOAT, "float32")
    values = native_images(filled(images, fixed_batch(graph)), dtype, channels_last=channels_last(graph))
    return {str(entry.name): values}


def fixed_batch(graph: ir.Graph) -> int | None:
    """Return a graph's fixed batch size, or None."""
    shape = image_value_of(graph).shape
    return shape[0] if shape is not None and len(shape) and isinstance(shape[0], int) else None


def batch_size(graph: ir.Graph, threads: int) -> int:
    """Return how many images a run takes: the graph's fixed number, or few enough for their tensors to stay in the caches.

    On 2 threads a quantized ResNet-50 at 224x224, its Q/DQ pairs computed in float, takes 0.8 of the time with 2 images a run
    that it takes with 8. More threads have more to share; beyond 2 that is not measured.
    """
    return fixed_batch(graph) or min(8, max(2, threads))


def filled(images: Float32Array, size: int | None) -> Float32Array:
    """Return a batch of a fixed size, filled by repetition; as it is where no size is fixed.

    Raises:
        ValueError: there are more images than that.
    """
    count = len(images)
    if size is None or count == size:
        return images
    if count > size:
        raise ValueError(f"{count} images for a batch of {size}")
    return images[[i % count for i in range(size)]]


def run_session(session: Any, feed: Mapping[str, npt.NDArray[Any]], label: str) -> list[Any]:
    """Run a session and return its outputs; an error calls it by its label.

    Raises:
        ModelError: the graph cannot run what it is fed.
    """
    try:
        outputs: list[Any] = session.run(None, dict(feed))
    except Exception as exc:
        shape = tuple(next(iter(feed.values())).shape)
        cause = library_reason(exc)
        raise ModelError(f"{label}: ONNX Runtime cannot run it on a batch {shape}: {cause}", _remedy(session, shape)) from exc
    return outputs


def _remedy(session: Any, shape: tuple[int, ...]) -> str:
    """Return what to do: other images where their size is wrong, else it is the graph that does not run."""
    wanted = session.get_inputs()[0].shape
    fits = len(wanted) == len(shape) and all(not isinstance(a, int) or a == b for a, b in zip(wanted, shape, strict=True))
    return "check the model with onnx.checker and `emca-deploy profile`" if fits else "give data of the model's input size"


class GraphRunner:
    """A graph run for some of its tensors, whole or as the mean of each channel.

    A graph of fixed batch is run in pieces, the last one filled by repetition and trimmed again.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int, *, means: bool = False) -> None:
        """Make the tensors of these names, activations or inputs, the outputs of the model's graph, which is changed.

        `means` gives (N, C) means over the pixels of each image instead of the tensors.

        Raises:
            ModelError: ONNX Runtime refuses the graph.
        """
        graph = model.graph
        graph.outputs.clear()
        for value in find_values(graph, names):
            graph.outputs.append(leave_mean(graph, value) if means else leave(graph, value))
        prune(model)
        self._names, self._label = list(names), label_of(graph)
        self._graph, self._fixed = graph, fixed_batch(graph)
        self._session = open_graph(model, self._label, threads)

    def __call__(self, images: Float32Array) -> dict[str, Float32Array]:
        """Run (N, 3, H, W) float32 images; returns each tensor, (N, ...) float32, by its name.

        Raises:
            ModelError: the graph cannot run images of that shape.
        """
        size = self._fixed or len(images)
        pieces = [self._run(images[start : start + size]) for start in range(0, len(images), size)]
        return {name: np.concatenate(parts) for name, parts in zip(self._names, zip(*pieces, strict=True), strict=True)}

    def _run(self, images: Float32Array) -> list[Float32Array]:
        outputs = run_session(self._session, feed_of(self._graph, images), self._label)
        return [output[: len(images)] for output in outputs]


def pool_size(threads: int) -> tuple[int, int]:
    """Return how many workers to use, and how many threads each one's runtime."""
    workers = min(threads, LARGEST_POOL)
    return workers, max(1, threads // workers)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield the results of work on items, done by threads, in the items' order; few wait, however many items there are.

    Raises:
        Exception: what the work raises, in its item's turn.
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
