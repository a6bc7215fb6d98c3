"""Collecting what the calibration methods need: one streaming pass of the fp32 model over the calibration images.

Smallest and largest values are taken inside the graph, by ReduceMin and ReduceMax nodes, so that only a few numbers per
tensor and image leave the runtime. Histograms need the tensors themselves: each worker runs a few images and counts their values
before it takes the next, so memory depends on neither the number of images nor the method. Of the operands of a residual Add
what is looked at is what of them survives the ReLU that follows.

What a ReLU cuts away needs no integers. Where relu(a + b) is all that becomes of a, relu(max(a, c) + b) is the same for every c
that max(a, -b) never falls below: what lies beneath ends at zero whichever it is. Convolutions that end a branch often reach
twice as far down as that. Ranges that stop there have finer steps, in exact arithmetic for nothing.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy._progress import Progress
from emca_deploy.calibration.graphs.graph import only_feeds
from emca_deploy.calibration.graphs.graph_session import (
    append_output,
    feed_of,
    find_values,
    fixed_batch,
    in_order,
    leave,
    open_graph,
    pool_size,
    run_session,
)
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import Observation
from emca_deploy.canonical.edit import new_constant
from emca_deploy.canonical.marks import label_of
from emca_deploy.errors import DataError

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource

__all__ = ["collect_observations"]

REDUCED_BATCH = 8
"""Images a call where the graph reduces; larger ones fall out of the cache and gain nothing."""

COUNTED_BATCH = 1
"""Images a call where tensors leave the runtime: what one image makes is still in the cache when it is counted."""

REDUCTIONS = {"ReduceMin": 18, "ReduceMax": 18, "ReduceSum": 13}
"""Each with the opset since which its axes are an input, no attribute."""

Images = npt.NDArray[np.float32]
Digest = tuple[Images, Images] | Histogram


def collect_observations(
    model: ir.Model,
    names: Sequence[str],
    source: "ImageSource",
    indices: Sequence[int],
    threads: int,
    progress: Progress | None,
    method: Method,
) -> dict[str, Observation]:
    """Return what a method needs to know of some tensors.

    Of a residual Add's operands it is what the ReLU after the Add sees of them. The canonical graph is left as it is; names come
    in the order they are computed; threads serve the runtime and the counting together; `progress` is called with (images done,
    images in all).

    Raises:
        InputError: no such method.
        ModelError: the model cannot be run on these images.
        DataError: an activation is infinite or not a number; the tensor and the image are named.
    """
    work = _Pass(model.clone(), names, threads, counts=method.reads_histogram)
    observers = {name: method.observer() for name in work.names}
    done = 0
    for digests, count in work.digests(source, indices):
        for name, digest in zip(work.names, digests, strict=True):
            try:
                if isinstance(digest, ValueError):
                    raise digest
                observers[name].observe(*(digest if isinstance(digest, tuple) else (digest,)))
            except ValueError as exc:
                where = ", ".join(source.item_name(i) for i in _culprits(digest, indices[done : done + count]))
                raise DataError(f"tensor {name}: {exc}, in image {where}", "check the image and the model's weights") from exc
        done += count
        if progress:
            progress(done, len(indices))
    return {name: observer.observation() for name, observer in observers.items()}


def _culprits(digest: Digest | ValueError, members: Sequence[int]) -> Sequence[int]:
    """Return which images of a batch make a tensor infinite; all of them where that cannot be told apart."""
    if isinstance(digest, tuple) and len(digest[0]) == len(members):
        infinite = ~(np.isfinite(digest[0]) & np.isfinite(digest[1]))
        return [member for member, bad in zip(members, infinite, strict=True) if bad]
    return members


class _Pass:
    """A session that gives, of images, what there is to know of each tensor."""

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int, *, counts: bool) -> None:
        self.names = names
        self._graph, self._counts = model.graph, counts
        _open(model, self.names) if counts else _reduce(model, self.names)
        self._workers, threads_each = pool_size(threads) if counts else (1, threads)
        self._session = open_graph(model, label_of(model.graph), threads_each)
        self._fixed = fixed_batch(model.graph)

    def digests(self, source: "ImageSource", indices: Sequence[int]) -> Iterator[tuple[list[Digest | ValueError], int]]:
        """Yield each batch's digest of every tensor and its number of images, in the images' order."""
        batches = source.batches(self._fixed or (COUNTED_BATCH if self._counts else REDUCED_BATCH), indices)

        def digest(images: Images) -> tuple[list[Digest | ValueError], int]:
            return self._digest(images), len(images)

        yield from in_order(digest, (images for images, _ in batches), self._workers)

    def _digest(self, images: Images) -> list[Digest | ValueError]:
        count = len(images)
        feed = feed_of(self._graph, images)
        size = len(next(iter(feed.values())))
        outputs: list[Images] = run_session(self._session, feed, label_of(self._graph))
        if not self._counts:
            rows = [_rows(output, size, count) for output in outputs]
            return [_extremes(*rows[i : i + len(REDUCTIONS)]) for i in range(0, len(rows), len(REDUCTIONS))]
        return [_histogram(_rows(output, size, count)) for output in outputs]


def _rows(output: Images, size: int, count: int) -> Images:
    """Return what an output says of the first `count` images, without those that fill a fixed batch."""
    return output[:count] if len(output) == size else output


def _extremes(minima: Images, maxima: Images, sums: Images) -> tuple[Images, Images]:
    return np.where(np.isnan(sums), sums, minima), np.where(np.isnan(sums), sums, maxima)


def _histogram(values: Images) -> Histogram | ValueError:
    try:
        return Histogram.of(values)
    except ValueError as exc:
        return exc


def _observed(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    """Return what is looked at of the tensors of these names, in a graph that has no outputs any more."""
    partners, cut = _relu_partners(graph), _hard_swish_inputs(graph)
    graph.outputs.clear()

    def seen(value: ir.Value) -> ir.Value:
        if value in partners:
            return _as_relu_sees(graph, value, partners[value])
        return _as_hard_swish_sees(graph, value, cut[value]) if value in cut else value

    return [seen(value) for value in find_values(graph, names)]


def _open(model: ir.Model, names: Sequence[str]) -> None:
    """Make the graph's outputs the tensors of these names."""
    graph = model.graph
    graph.outputs.extend([leave(graph, value) for value in _observed(graph, names)])


def _reduce(model: ir.Model, names: Sequence[str]) -> None:
    """Make the graph's outputs each image's smallest value, largest and sum of the tensors of these names, by turns.

    The sum is there because it alone is sure to be NaN where a value is: the runtime's minima and maxima may step over one.
    """
    graph, opset = model.graph, model.opset_imports.get("", 0)
    axes = ir.Value(name="calibration/axes", const_value=ir.tensor(np.array([1], np.int64), name="calibration/axes"))
    graph.register_initializer(axes)
    for value in _observed(graph, names):
        flat = append_output(graph, ir.node("Flatten", [value]), f"{value.name}/flat")
        for operator, since in REDUCTIONS.items():
            attributes: dict[str, Any] = {"keepdims": 0} if opset >= since else {"keepdims": 0, "axes": [1]}
            node = ir.node(operator, [flat, axes] if opset >= since else [flat], attributes)
            graph.outputs.append(append_output(graph, node, f"{value.name}/{operator}"))


def _relu_partners(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Return, of each tensor that only an Add reads whose sum only ReLUs read, the Add's other operand.

    Both can be cut at once: of two operands whose sum is below zero, neither cut, both at or below zero, lifts it above.
    """
    partners: dict[ir.Value, ir.Value] = {}
    for node in graph:
        if node.op_type != "Add" or len(node.inputs) != 2 or not only_feeds(node.outputs[0], "Relu"):
            continue
        first, second = node.inputs
        if first is None or second is None or first is second or first.producer() is None or second.producer() is None:
            continue
        for value, other in ((first, second), (second, first)):
            if len(value.uses()) == 1 and not value.is_graph_output():
                partners[value] = other
    return partners


def _as_relu_sees(graph: ir.Graph, value: ir.Value, partner: ir.Value) -> ir.Value:
    """Append max(value, -partner) to a graph and return it, of the Add's shape: what of `value` changes the ReLU's result."""
    negative = append_output(graph, ir.node("Neg", [partner]), f"{value.name}/least")
    return append_output(graph, ir.node("Max", [value, negative]), f"{value.name}/relu_sees")


def _hard_swish_inputs(graph: ir.Graph) -> dict[ir.Value, float]:
    """Return, of each tensor that only x * HardSigmoid(x) reads, the number below which that is always 0."""
    found: dict[ir.Value, float] = {}
    for node in graph:
        value = node.inputs[0] if node.op_type == "HardSigmoid" else None
        uses = list(node.outputs[0].uses())
        if value is None or value.is_graph_output() or value.producer() is None or len(uses) != 1:
            continue
        product = uses[0].node
        alpha, beta = float(node.attributes.get_float("alpha", 0.2)), float(node.attributes.get_float("beta", 0.5))
        readers = {use.node for use in value.uses()}
        if product.op_type == "Mul" and value in product.inputs and readers == {node, product} and alpha > 0:
            found[value] = -beta / alpha
    return found


def _as_hard_swish_sees(graph: ir.Graph, value: ir.Value, least: float) -> ir.Value:
    """Append max(value, least) to a graph and return it."""
    bound = new_constant(graph, f"{value.name}/least_seen", np.array(least, np.float32))
    return append_output(graph, ir.node("Max", [value, bound]), f"{value.name}/hard_swish_sees")
