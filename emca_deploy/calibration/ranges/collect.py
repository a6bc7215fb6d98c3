"""Observing tensors for the calibration methods, in one streaming pass of the fp32 model over the calibration images.

Smallest and largest values are taken inside the graph by ReduceMin and ReduceMax, and only a few numbers per tensor and image
leave the runtime. Histograms need the tensors themselves: each worker runs an image and counts its values before it takes the
next, and memory depends on neither the number of images nor the method.

Values that a ReLU cuts off need no integers. Where a is only used in relu(a + b), max(a, -b) gives the same result, and its range
is observed instead. Convolutions that end a branch often reach twice as far down; the smaller range has finer steps without any
loss in exact arithmetic. The input of a HardSwish is observed only where its result is not always 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph import only_feeds
from emca_deploy.calibration.graphs.graph_session import (
    GraphSession,
    append_output,
    feed_of,
    find_values,
    fixed_batch,
    in_order,
    leave,
    pool_size,
    prune,
    regions_of,
)
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import Observation, Observer
from emca_deploy.canonical.edit import int64_constant, new_constant
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import DataError

__all__ = ["Digest", "Passenger", "TensorPass", "collect_observations", "counted_batch", "ends_of", "observe"]

REDUCED_BATCH = 8
"""Images of one call where the graph reduces; larger batches fall out of the cache and gain nothing."""

COUNTED_BATCH = 1
"""Images of one call where tensors leave the runtime: one image's tensors are still in the cache when they are counted."""

COUNTED_VALUES = 1 << 14
"""Values of one image's tensor that a histogram counts at least, where the tensor has three times as many: an even sample. One
image's values tell less about the next one's than a hundred images' samples do."""

REDUCTIONS = {"ReduceMin": 18, "ReduceMax": 18, "ReduceSum": 13}
"""Operators, and the opset since which their axes are an input instead of an attribute."""

Digest = tuple[Float32Array, Float32Array] | Histogram
"""Each image's smallest and largest value of a tensor, or the histogram of all."""


class Passenger(Protocol):
    """Other work on the tensors of the same pass, which saves a pass of its own."""

    @property
    def reads(self) -> Sequence[str]:
        """Names of the tensors that it needs whole."""

    def take(self, number: int, tensors: Mapping[str, Float32Array]) -> Any:
        """Return what is kept of an image, from tensors (1, ...), or (R, ...) of its R regions, by name; `number` is its index.

        It is called by several threads.
        """

    def add(self, taken: Any) -> None:
        """Add what was taken of an image; called in the images' order."""


def collect_observations(
    model: ir.Model,
    names: Sequence[str],
    source: ImageSource,
    indices: Sequence[int],
    threads: int,
    progress: Progress | None,
    method: Method,
    passenger: Passenger | None = None,
) -> dict[str, Observation]:
    """Return the observations of some tensors of a canonical graph that a method needs.

    `names` are in the order in which the tensors are computed. `threads` serve both the runtime and the counting; `progress` is
    called with (images done, all images). `passenger` sees the same images.

    Raises:
        ModelError: the model cannot run these images.
        DataError: an activation is infinite or not a number; the error names the tensor and the image.
    """
    work = TensorPass(model.clone(), names, threads, passenger, counts=method.reads_histogram)
    observers = {name: method.observer() for name in names}
    done = 0
    for digests, taken in work.digests(source, indices):
        count = len(taken)
        observe(observers, digests, source, indices[done : done + count])
        if passenger is not None:
            for each in taken:
                passenger.add(each)
        done += count
        if progress:
            progress(done, len(indices))
    return {name: observer.observation() for name, observer in observers.items()}


def observe(
    observers: Mapping[str, Observer], digests: Sequence[Digest | ValueError], source: ImageSource, members: Sequence[int]
) -> None:
    """Add the digests of some images to the observers, in the same order.

    Raises:
        DataError: an activation is infinite or not a number.
    """
    for (name, observer), digest in zip(observers.items(), digests, strict=True):
        try:
            if isinstance(digest, ValueError):
                raise digest
            observer.observe(*(digest if isinstance(digest, tuple) else (digest,)))
        except ValueError as exc:
            where = ", ".join(source.item_name(index) for index in _culprits(digest, members))
            raise DataError(f"tensor {name}: {exc}, in image {where}", "check the image and the model's weights") from exc


def ends_of(digest: Digest | ValueError) -> tuple[float, float]:
    """Return the smallest and largest value that a digest saw; NaN where a value is not finite."""
    if isinstance(digest, ValueError):
        return np.nan, np.nan
    if isinstance(digest, tuple):
        return float(digest[0].min()), float(digest[1].max())
    return digest.minimum, digest.maximum


def counted_batch(graph: ir.Graph) -> int:
    """Return the images of one batch where tensors are counted."""
    return fixed_batch(graph) or COUNTED_BATCH


def _culprits(digest: Digest | ValueError, members: Sequence[int]) -> Sequence[int]:
    """Return the images of a batch that make a tensor infinite; all of them where that is unknown."""
    if isinstance(digest, tuple) and len(digest[0]) == len(members):
        infinite = ~(np.isfinite(digest[0]) & np.isfinite(digest[1]))
        return [member for member, bad in zip(members, infinite, strict=True) if bad]
    return members


class TensorPass:
    """A session that digests each tensor of some images; histograms where it `counts`, and smallest and largest values elsewhere.

    Attributes:
        names: names of the tensors.
        passenger: other work on the same tensors.
    """

    def __init__(
        self,
        model: ir.Model,
        names: Sequence[str],
        threads: int,
        passenger: Passenger | None,
        *,
        counts: bool,
        single: bool = False,
    ) -> None:
        """Make the tensors the outputs of the model's graph, which is changed; `single` runs one image at a time in any case.

        Raises:
            ModelError: ONNX Runtime refuses the graph.
        """
        self.names, self.passenger = names, passenger
        self._graph, self._counts = model.graph, counts
        carried = find_values(model.graph, passenger.reads) if passenger is not None else []
        observed = _observed(model.graph, names) if counts else _reduced(model, names)
        outputs = list(dict.fromkeys([*observed, *carried]))
        self._observed = [outputs.index(value) for value in observed]
        self._carried = [outputs.index(value) for value in carried]
        model.graph.outputs.extend([leave(model.graph, value) for value in outputs])
        self._one_by_one = single or counts or passenger is not None
        self._workers, threads_each = pool_size(threads) if self._one_by_one else (1, threads)
        prune(model)
        self._session = GraphSession(model, threads_each)
        self._fixed = fixed_batch(model.graph)

    def digests(self, source: ImageSource, indices: Sequence[int]) -> Iterator[tuple[list[Digest | ValueError], list[Any]]]:
        """Yield the digests of every tensor, and what the passenger took of each image, batch by batch in the images' order."""
        size = self._fixed or (COUNTED_BATCH if self._one_by_one else REDUCED_BATCH)
        batches = (images for images, _ in source.batches(size, indices))
        numbers = (indices[start : start + size] for start in range(0, len(indices), size))
        yield from in_order(self._digest, zip(numbers, batches, strict=True), self._workers)

    def _digest(self, numbered: tuple[Sequence[int], Float32Array]) -> tuple[list[Digest | ValueError], list[Any]]:
        numbers, images = numbered
        feed = feed_of(self._graph, images)
        size = len(next(iter(feed.values())))
        outputs: list[Float32Array] = self._session.run(feed)
        count = len(images)
        rows = [output[: count * regions_of(output, size)] for output in outputs]  # not what fills a fixed batch
        observed = [rows[index] for index in self._observed]
        digests: list[Digest | ValueError]
        if self._counts:
            digests = [_histogram(values, count) for values in observed]
        else:
            digests = [_extremes(*observed[i : i + len(REDUCTIONS)]) for i in range(0, len(observed), len(REDUCTIONS))]
        return digests, [self._take(number, rows, (place, count)) for place, number in enumerate(numbers)]

    def _take(self, number: int, rows: Sequence[Float32Array], place: tuple[int, int]) -> Any:
        """Return what the passenger takes of the image at a place among some images."""
        if self.passenger is None:
            return None
        index, count = place
        tensors = {}
        for name, at in zip(self.passenger.reads, self._carried, strict=True):
            each = regions_of(rows[at], count)
            tensors[name] = rows[at][index * each : (index + 1) * each]
        return self.passenger.take(number, tensors)


def _extremes(minima: Float32Array, maxima: Float32Array, sums: Float32Array) -> tuple[Float32Array, Float32Array]:
    return np.where(np.isnan(sums), sums, minima), np.where(np.isnan(sums), sums, maxima)


def _histogram(values: Float32Array, images: int) -> Histogram | ValueError:
    step = max(1, values.size // images // COUNTED_VALUES)
    try:
        return Histogram.of(values, step - 1 + step % 2)  # odd: an even step could fall on the same columns of every row
    except ValueError as exc:
        return exc


def _observed(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    """Return the tensors to observe for these names, in a graph whose outputs are removed."""
    partners, cut = _relu_partners(graph), _hard_swish_inputs(graph)
    graph.outputs.clear()

    def seen(value: ir.Value) -> ir.Value:
        if value in partners:  # of the Add's shape
            negative = append_output(graph, ir.node("Neg", [partners[value]]), f"{value.name}/least")
            return append_output(graph, ir.node("Max", [value, negative]), f"{value.name}/relu_sees")
        if value in cut:
            bound = new_constant(graph, f"{value.name}/least_seen", np.array(cut[value], np.float32))
            return append_output(graph, ir.node("Max", [value, bound]), f"{value.name}/hard_swish_sees")
        return value

    return [seen(value) for value in find_values(graph, names)]


def _reduced(model: ir.Model, names: Sequence[str]) -> list[ir.Value]:
    """Return each image's smallest value, largest value and sum of the observed tensors, by turns; remove the graph's outputs.

    Only the sum is sure to be NaN where a value is; the runtime's minima and maxima may skip one.
    """
    graph, opset = model.graph, model.opset_imports.get("", 0)
    axes = int64_constant(graph, "calibration/axes", [1])
    found: list[ir.Value] = []
    for value in _observed(graph, names):
        flat = append_output(graph, ir.node("Flatten", [value]), f"{value.name}/flat")
        for operator, since in REDUCTIONS.items():
            attributes: dict[str, Any] = {"keepdims": 0} if opset >= since else {"keepdims": 0, "axes": [1]}
            node = ir.node(operator, [flat, axes] if opset >= since else [flat], attributes)
            found.append(append_output(graph, node, f"{value.name}/{operator}"))
    return found


def _relu_partners(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Return each tensor that only an Add reads whose sum only ReLUs read, and the Add's other operand.

    Both operands may be cut at once: where their sum is below zero, the cut operands' sum is not above it.
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


def _hard_swish_inputs(graph: ir.Graph) -> dict[ir.Value, float]:
    """Return each tensor that only x * HardSigmoid(x) reads, and the number below which the product is always 0."""
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
